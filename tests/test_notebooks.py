"""Every chapter has the anatomy that CONTRIBUTING.md promises."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "docs" / "chapter-template.ipynb"]
CHAPTERS = [path for path in NOTEBOOKS if path.stem != "model-card"]


def read(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    return book


def tags(cell):
    return set(cell.metadata.get("tags", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_head_and_parameters(path):
    book = read(path)
    head = book.cells[0].source
    assert head.startswith("# ")
    for part in ("**Objectives.**", "**Prerequisites.**", "<!-- minutes -->"):
        assert part in head
    (parameters,) = [cell for cell in book.cells if "parameters" in tags(cell)]
    names = re.findall(r"^(\w+) =", parameters.source, re.MULTILINE)
    assert names[:3] == ["profile", "seed", "device"]
    assert names[3:] in ([], ["seeds"])  # the repetitions that the chapters on evaluation read


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
    for cell in read(path).cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_install_cell_names_the_repository(path):
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    install = read(path).cells[1]
    assert f"git+{url}" in install.source
    assert "remove-cell" in tags(install)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_html_is_made_by_show_alone_which_escapes_it(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    assert not re.search(r"\b(HTML|Javascript|display_html)\(|</?[a-z]+[ >]", code)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_foot(path):
    book = read(path)
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert len(re.findall(r'<details class="quiz"><summary>\d\. ', text)) == 3
    assert "**Take-away.**" in text
    assert path.stem == "welcome" or "## Discussion" in text
    exercises = len(re.findall(r"\*\*Exercise \d\.\*\*", text))
    solutions = [cell for cell in book.cells if "solution" in tags(cell)]
    answers = [cell for cell in book.cells if cell.cell_type == "code" and cell.source.startswith("answer = ...")]
    assert exercises == len(solutions) == len(answers) >= 2
    assert all("hide-cell" in tags(cell) and "check(" in cell.source for cell in solutions)
    assert all(re.search(r"check\(\s*answer,", cell.source) for cell in answers)
    assert "{footbibliography}" in text
    assert "{footcite}" in text
