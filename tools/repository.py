"""Set the repository's address everywhere it is written: ``make repository URL=https://github.com/you/book``.

The address is that of the repository itself, as the buttons of the pages and Colab put it together: a host, an owner, a
name. GitLab's nested groups cannot be told from a subfolder, and Colab opens none of them: they are refused.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SHAPE = re.compile(r"https://([A-Za-z0-9-]+\.)+[A-Za-z0-9-]+/[A-Za-z0-9_-][\w.-]*/[\w.-]+", re.ASCII)


def files(root: Path) -> list[Path]:
    """Files that may name the repository; the one that holds the setting comes last, so that a cut-off run can go on."""
    patterns = ("CITATION.cff", "README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*.ipynb", "notebooks/*.ipynb", "_config.yml")
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def main(url: str, root: Path = ROOT) -> int:
    """Replace the address in `_config.yml`, and every copy of it, by `url`; 0 if it is an address of a repository."""
    if not SHAPE.fullmatch(url) or url.endswith(".git") or url.split("/")[-1].strip(".") == "":
        print(
            "the address must be that of the repository itself, a host, an owner and a name as in https://github.com/you/book, "
            f"with nothing before or after them (no .git, subfolder or last slash), got {url!r}"
        )
        return 1
    try:
        old = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]["url"]
        spelt = re.compile(re.escape(old) + r"(?![\w-]|\.(?!git\b)\w)")  # not the head of a longer name
        for path in files(root):
            text = path.read_bytes().decode("utf-8")
            if spelt.search(text):
                part = path.with_name(f".{path.name}.part")
                part.write_bytes(spelt.sub(url, text).encode("utf-8"))
                os.replace(part, path)
                print(path.relative_to(root))
    except (yaml.YAMLError, KeyError, TypeError):
        print(f"{root / '_config.yml'} names no repository (repository: url: ...)")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        print(f"the address was not set everywhere; run it again when this is mended: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
