"""Open one page in headless Chromium and use it, in a process of its own: lines of JSON as each thing is measured.

`python benchmarks/viewing/use.py WAY HEADS PAGE LIBRARIES` is started by `benchmarks/views.py`. Times are the page's
own: from the start of the navigation, or from the time stamp of the pointer's event, until the frame that shows what
was waited for. `LIBRARIES` is a folder with the packages that BertViz' page asks the network for; anything else that a
page asks for is refused.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, Route, sync_playwright
from ways import WAYS, Way

CLICKS, HOVERS = 5, 7
SMOOTH = 100  # milliseconds between two frames of a page that can be used
SERVED = {
    "require.min.js": "requirejs/require.js",
    "d3.min.js": "d3/dist/d3.min.js",
    "jquery.min.js": "jquery/dist/jquery.min.js",
}
TIMED = """
const painted = then => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = then;
  port2.postMessage(0);
};
window.opened = new Promise(answer => {
  let drawn = 0, before = 0;
  const look = now => {
    if (drawn && now - before < SMOOTH) return painted(() => answer([drawn, performance.now()]));
    if (!drawn && document.readyState !== "loading" && READY) painted(() => { drawn = performance.now(); });
    before = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
window.calm = () => new Promise(answer => {
  let before = 0;
  const look = now => {
    if (now - before < SMOOTH) return answer();
    before = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
window.timed = (type, done) => new Promise(answer => {
  let start = null;
  addEventListener(type, event => { start ??= event.timeStamp; }, { capture: true });
  const look = () => {
    if (start !== null && done()) painted(() => answer(performance.now() - start));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""


def main() -> None:
    name, heads, path, libraries = sys.argv[1:]
    way = WAYS[name]
    with sync_playwright() as playwright:
        # Chromium keeps to its limits; a page of several hundred megabytes is not refused for its size alone.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.route(re.compile("^http"), lambda route: serve(route, Path(libraries)))
        page = context.new_page()
        page.on("crash", lambda _: say(crashed=True))
        page.set_default_timeout(0)  # whoever started this process ends it
        ready = f"({way.ready.replace('HEADS', heads)})"
        page.add_init_script(way.prepare + TIMED.replace("READY", ready).replace("SMOOTH", str(SMOOTH)))
        page.goto(Path(path).as_uri(), wait_until="commit")
        drawn, usable = page.evaluate("() => opened")
        say(drawn=drawn / 1000, usable=usable / 1000, **memory(page))
        use(page, way, int(heads))
        browser.close()


def serve(route: Route, libraries: Path) -> None:
    file = SERVED.get(route.request.url.rpartition("/")[2])
    if file:
        route.fulfill(path=libraries / file)
    else:
        route.abort()


def say(**measured: Any) -> None:
    print(json.dumps(measured), flush=True)


def memory(page: Page) -> dict[str, float]:
    """Megabytes: JavaScript's heap after a collection, and what the page's process holds beyond files."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    devtools.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    renderers = [
        each.memory_info()
        for each in psutil.Process().children(recursive=True)
        if "--type=renderer" in each.cmdline()
    ]
    held = max(each.rss - each.shared for each in renderers)
    return {"heap_mb": metrics["JSHeapUsedSize"] / 1e6, "process_mb": held / 1e6}


def use(page: Page, way: Way, heads: int) -> None:
    """Choose heads, then point at entries or tokens. Before each the pointer is away and the page is calm."""
    for number in range(CLICKS):
        away(page)
        arm(page, way, way.act, way.drawn)
        x, y = place(page, way.head.replace("NUMBER", str(1 + number % (heads - 1))), None)
        if way.act == "mouseover":
            page.mouse.move(x, y)
        else:
            page.mouse.click(x, y, click_count=2 if way.act == "dblclick" else 1)
        say(click_ms=page.evaluate("() => found"))
    for number in range(1, HOVERS + 1):
        away(page)
        x, y = place(page, way.over.replace("NUMBER", str(number)), way.offset)
        arm(page, way, "mousemove", way.said)
        page.mouse.move(x + 9 * number, y + 7 * number) if way.offset else page.mouse.move(x, y)
        say(hover_ms=page.evaluate("() => found"))


def away(page: Page) -> None:
    page.mouse.move(2, 2)
    page.evaluate("() => calm()")


def arm(page: Page, way: Way, event: str, done: str) -> None:
    page.evaluate(f"() => {{ const was = {way.state}; window.found = timed('{event}', () => {done}); }}")


def place(page: Page, selector: str, share: tuple[float, float] | None) -> tuple[float, float]:
    """A point of an element in the window, scrolled to it."""
    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    if box is None:
        raise SystemExit(f"{selector} is not shown")
    a, b = share or (0.5, 0.5)
    return box["x"] + a * box["width"], min(box["y"] + b * box["height"], 850)


if __name__ == "__main__":
    main()
