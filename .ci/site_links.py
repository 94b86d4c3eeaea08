"""Check the built site: every link and picture inside it leads somewhere, and no page loads anything from the network.

Run with `python .ci/site_links.py site`: prints what is broken, and how many links it has followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names or leads to."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.leads.append(found["href"])
        if tag in LOADED and LOADED[tag] in found and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(found[LOADED[tag]])


def broken(site: Path) -> tuple[list[str], int]:
    """What does not lead anywhere or is loaded from elsewhere, and the number of links inside the site."""
    files = [
        path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts
    ]  # the theme's templates
    pages = {path: Page(path.read_text()) for path in files}
    wrong, followed = [], 0
    for path, page in pages.items():
        here = path.relative_to(site)
        wrong += [f"{here} loads {link}" for link in page.loads if urlsplit(link).netloc]
        for link in (*page.leads, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.is_file():
                wrong.append(f"{here} leads to {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{here} leads to {link}: no such anchor")
    return wrong, followed


def main() -> None:
    """Print what is broken; fail if anything is."""
    wrong, followed = broken(Path(sys.argv[1]).resolve())
    print(*wrong, f"{followed} links inside the site, {len(wrong)} broken", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
