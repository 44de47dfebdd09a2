"""Set the repository's address everywhere it is written: ``make repository URL=https://github.com/you/book``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def files(root: Path) -> list[Path]:
    """Files that may name the repository."""
    patterns = ("_config.yml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*.ipynb", "notebooks/*.ipynb")
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def main(url: str, root: Path = ROOT) -> int:
    """Replace the address in `_config.yml`, and every copy of it, by `url`."""
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", url):
        print(f"the address must look like https://github.com/you/book, got {url!r}")
        return 1
    old = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
    for path in files(root):
        text = path.read_text("utf-8")
        if old in text:
            path.write_text(text.replace(old, url), "utf-8")
            print(path.relative_to(root))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
