// Draws the plotly figures of notebooks. plotly.js (4.8 MB) is loaded only by pages that have one.
(() => {
  const here = document.currentScript.src;
  const NARROWEST = 640; // pixels; below it titles and panels do not fit

  function draw(element) {
    const figure = JSON.parse(element.querySelector("script").textContent);
    const config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetScale2d"]] };
    const layout = { ...figure.layout, autosize: true };
    element.classList.add("drawn"); // shown, so that it has a width
    const least = layout.width ?? NARROWEST;
    if (element.clientWidth < least) {
      element.style.width = `${least}px`; // the frame around it scrolls
    }
    globalThis.Plotly.newPlot(element, figure.data, layout, config);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const figures = document.querySelectorAll(".plotly-figure");
    if (!figures.length) return;
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", here).href;
    script.onload = () => figures.forEach(draw);
    document.head.append(script);
  });
})();
