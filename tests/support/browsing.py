"""Chromium driven by Playwright, and pages that may neither ask the network nor write to the console."""

from contextlib import contextmanager

from playwright.sync_api import sync_playwright


@contextmanager
def driven(path):
    """The Chromium at a path, without a window; what `new_context` makes of it lasts until the end."""
    with sync_playwright() as playwright:
        # A container's shared memory may be too small for a page, and its root needs no sandbox.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def silent_page(browser, **options):
    """An empty page with the network off; options are those of `new_context`: viewport, color_scheme.

    At the end it asserts that nothing was written to the console, nothing was thrown and nothing was asked for:
    a request that the missing network refuses is a line of the console.
    """
    said = []
    with browser.new_context(offline=True, **options) as context:
        context.on("console", lambda line: said.append(f"{line.type}: {line.text}"))
        context.on("weberror", lambda thrown: said.append(f"thrown: {thrown.error}"))
        page = context.new_page()
        yield page
        page.evaluate("0")  # what was said until now has arrived
    assert not said, said
