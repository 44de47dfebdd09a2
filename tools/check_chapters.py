"""Prove that every chapter was executed: each code cell ran, in order, without error; figures have alt text, solutions pass.

And that its page is the one which the run wrote, byte by byte.
Needed because the build itself, with `execute_notebooks: off`, takes an unexecuted or failed notebook without a word.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

from contents import pages
from stamps import unproven

MEANINGLESS = re.compile(r"^(image|figure|plot|picture|png|photo)?\s*\d*$|[/\\].*\.(png|jpe?g|svg)$", re.IGNORECASE)


def problems(path: Path) -> list[str]:
    """Everything that is wrong with one executed notebook."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a cut or altered file ends nbformat in many ways
        return [f"cannot be read as a notebook ({type(error).__name__}): it was cut short or altered; run it again"]
    found, expected = [], 1
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count != expected:
            found.append(f"cell {index}: execution count {cell.execution_count}, expected {expected}: not run, or out of order")
        expected = (cell.execution_count or expected) + 1
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {index}: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr" and "Traceback" in output.text:
                found.append(f"cell {index}: a traceback on stderr")
            found += [f"cell {index}: {text}" for text in _without_alt(cell, output.get("data", {}))]
        said = "".join(output.get("text", "") for output in cell.outputs)
        if cell.source.startswith("answer = ...") and "Not answered yet" not in said:
            found.append(f"cell {index}: an exercise that does not say that it is open")
        if "solution" in cell.metadata.get("tags", []) and "Right!" not in said:
            found.append(f"cell {index}: a solution that does not pass its own check")
    return found if expected > 1 else [*found, "has no code cell"]


def _without_alt(cell: nbformat.NotebookNode, data: dict) -> list[str]:
    """Figures of one output that carry no real alt text."""
    found = []
    if any(kind.startswith("image/") for kind in data) and not says_something(
        cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    ):
        found.append("a figure without alt text")
    for image in BeautifulSoup(data.get("text/html", ""), "html.parser").find_all("img"):
        if not says_something(image.get("alt", "")):
            found.append(f"a picture with the alt text {image.get('alt')!r}")
    return found


def says_something(alt: str) -> bool:
    """Is this alt text a description: at least four words, and no file name?"""
    return len(alt.split()) >= 4 and not MEANINGLESS.search(alt.strip())


def main(folder: str) -> int:
    """Check every chapter of the table of contents under `folder`, and that its run wrote its page; returns 0 if all are well."""
    root = Path(folder)
    try:
        chapters = [page for page in pages(root) if page.suffix == ".ipynb"]
    except (OSError, ValueError) as error:
        print(f"not every chapter was run: {error}")
        return 1
    wrong = []
    for chapter in chapters:
        altered = unproven(root / chapter)
        wrong += [f"{chapter}: {problem}" for problem in ([altered] if altered else problems(root / chapter))]
    print(
        "\n".join(wrong)
        or f"{len(chapters)} chapters: every code cell ran in order, every figure has alt text, every solution passes"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
