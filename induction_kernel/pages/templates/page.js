// Clicking a column heading sorts a table; clicking a head in a table chooses it in the attention view; figures follow
// the width of their column.
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
for (const link of document.querySelectorAll("a[data-head]")) {
  link.addEventListener("click", () => {
    const view = document.querySelector("#attention ~ * .ik-heads") ?? document.querySelector(".ik-heads");
    for (const name of view?.querySelectorAll("h4") ?? []) if (name.textContent === link.dataset.head) name.click();
  });
}
for (const plot of document.querySelectorAll(".js-plotly-plot")) {
  new ResizeObserver(() => Plotly.Plots.resize(plot)).observe(plot.closest("figure"));
}
