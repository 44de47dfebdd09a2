"""A book of two small chapters: a test module takes it in with `book = small_book.book`."""

import nbformat
import pytest


def notebook(*cells, parameters='profile = "mini"'):
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    made.cells.append(nbformat.v4.new_markdown_cell("# Title\n\n<!-- minutes -->"))
    made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    return made


@pytest.fixture
def book(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "module.py").write_text("one = 1\n")
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://example.org/a/b\n")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: notebooks/first\nparts:\n"
        "  - chapters:\n      - file: notebooks/second\n      - file: notebooks/plain\n"
    )
    (tmp_path / "notebooks" / "plain.md").write_text("# Plain\n")
    nbformat.write(notebook("print(profile)"), tmp_path / "notebooks" / "first.ipynb")
    nbformat.write(
        notebook("answer = 6 * 7", "answer", parameters='profile = "mini"\nsize = 3'), tmp_path / "notebooks" / "second.ipynb"
    )
    return tmp_path
