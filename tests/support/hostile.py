"""Texts, labels and names that would act if a page took them for markup, and a browser that says whether one did."""

import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

MARK = "document.title='RAN'"
HOSTILE = (
    f"</script><script>{MARK}</script>",
    f'"><img src=x onerror="{MARK}">',
    f'\'><svg onload="{MARK}">',
    f'<a href="javascript:{MARK}" autofocus onfocus="{MARK}">x</a>',
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:{port}/'>",
    "<img src=http://127.0.0.1:{port}/x><link rel=stylesheet href=http://127.0.0.1:{port}/y>",
    f"--><!--<script>{MARK}</script>",
    f"</style></title></textarea><iframe srcdoc='<script>parent.{MARK}</script>'>",
    "{{ 7 * 7 }} ${7*7} {% raw %} \\u003cscript\\u003e \\x3cscript\\x3e",
    "\0nul \u202eesrever\u202c \u2028 line",
)
QUIET = ["gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage"]


def dom(browser, page, profile):
    """What the page has become in the browser, after its scripts have run."""
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *(f"--disable-{each}" for each in QUIET),
    ]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@contextmanager
def listening():
    """A server on this machine: its port, and the paths that were asked for."""
    asked = []

    class Noted(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Noted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def check_nothing_ran(browser, page, profile, asked):
    """The page's own scripts ran, and nothing that was in its data."""
    drawn = dom(browser, page, profile)
    title = drawn.partition("<title>")[2].partition("</title>")[0]
    assert title
    assert title != "RAN"
    assert "main-svg" in drawn
    assert asked == []
