// Clicking a column heading sorts a table; clicking a head's name chooses it in the explorer; figures follow the width
// of their column.
const valueOf = row => {
  const text = row.textContent.trim().replaceAll("−", "-").replaceAll(",", "");
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === typeof b ? a.localeCompare(b, undefined, { numeric: true })
    : typeof a === "number" ? -1 : 1;
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
    const ascending = heading.getAttribute("aria-sort") === "descending";
    for (const other of table.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = [...body.rows].map(row => [valueOf(row.cells[heading.cellIndex]), row]);
    rows.sort((a, b) => (ascending ? 1 : -1) * compare(a[0], b[0]));
    body.append(...rows.map(each => each[1]));
  });
}
const explorer = document.querySelector(".ik-explorer");
if (explorer) explorer.dataset.theme = "light"; // like the rest of the page
for (const link of document.querySelectorAll("a[data-head]")) {
  link.addEventListener("click", () => {
    explorer?.dispatchEvent(new CustomEvent("ik:head", { detail: link.dataset.head }));
  });
}
for (const plot of document.querySelectorAll(".js-plotly-plot")) {
  new ResizeObserver(() => Plotly.Plots.resize(plot)).observe(plot.closest("figure"));
}
