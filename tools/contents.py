"""The chapters of the book, as the table of contents lists them."""

from __future__ import annotations

from pathlib import Path

import yaml


def pages(root: Path) -> list[Path]:
    """Every page, relative to `root`, in reading order: notebooks (.ipynb) and plain pages (.md).

    Raises:
        FileNotFoundError: a listed page has neither file.
        ValueError: `_toc.yml` is no table of contents.
    """
    try:
        contents = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
        listed = [contents["root"], *(chapter["file"] for part in contents["parts"] for chapter in part["chapters"])]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{root / '_toc.yml'} is no table of contents with a root and parts of chapters") from error
    found = []
    for name in listed:
        suffix = next((s for s in (".ipynb", ".md") if (root / f"{name}{s}").exists()), None)
        if suffix is None:
            raise FileNotFoundError(f"_toc.yml lists {name}, but there is no {name}.ipynb or {name}.md under {root}")
        found.append(Path(f"{name}{suffix}"))
    return found
