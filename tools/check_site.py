"""Prove that every page exists, every internal link and image resolves, and nothing is loaded from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from contents import pages

ROOT = Path(__file__).resolve().parents[1]


def broken(site: Path) -> list[str]:
    """Links, scripts, styles and images of every page that lead nowhere inside the site."""
    anchors: dict[Path, set[str]] = {}
    parsed = {
        page.resolve(): BeautifulSoup(page.read_text("utf-8"), "html.parser")
        for page in sorted(site.rglob("*.html"))
        if "_static" not in page.parts
    }
    for page, soup in parsed.items():
        anchors[page] = {str(tag[key]) for key in ("id", "name") for tag in soup.find_all(attrs={key: True})}
    found = []
    for page, soup in parsed.items():
        name = page.relative_to(site.resolve())
        for tag in soup.find_all(["a", "img", "script", "link"]):
            address = tag.get("href") or tag.get("src")
            if not address or str(address).startswith("data:"):
                continue
            parts = urlsplit(str(address))
            if parts.scheme or parts.netloc:
                if tag.name != "a" and not {"canonical", "alternate"} & set(tag.get("rel") or []):
                    found.append(f"{name}: {tag.name} {address} needs the network")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                found.append(f"{name}: {address} leads nowhere")
            elif parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target]:
                found.append(f"{name}: {address} names no place on its page")
    return found


def missing(site: Path, root: Path) -> list[str]:
    """Pages of the table of contents that were not built."""
    wanted = [Path("index.html"), *(page.with_suffix(".html") for page in pages(root))]
    return [f"{page} was not built" for page in wanted if not (site / page).exists()]


def main(folder: str, root: Path = ROOT) -> int:
    """Check the built site; returns 0 if all is well."""
    site = Path(folder)
    wrong = missing(site, root) or broken(site)
    print("\n".join(wrong) or f"{len(pages(root))} pages: all exist, every internal link resolves, nothing comes from elsewhere")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
