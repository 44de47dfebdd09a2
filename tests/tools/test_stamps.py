"""A stamp covers its page: what was altered after the run is found, and run again."""

import json

import nbformat
import pytest
import small_book

import check_chapters
import stamps
from book import Book

book = small_book.book
pytestmark = pytest.mark.filterwarnings("ignore")  # of papermill and the Jupyter machinery


@pytest.fixture
def page(tmp_path):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("seed = 0", execution_count=1)])
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "_toc.yml").write_text("root: notebooks/first\nparts: []\n")
    nbformat.write(made, folder / "first.ipynb")
    stamps.write_stamp(folder / "first.ipynb", key="k", seconds=1.5)
    return folder / "first.ipynb"


def add_script(text):
    made = nbformat.reads(text, as_version=4)
    code = next(cell for cell in made.cells if cell.cell_type == "code")
    code.outputs.append(nbformat.v4.new_output("display_data", {"text/html": "<script>1</script>"}))
    return nbformat.writes(made)


ALTERED = {
    "a seed": lambda text: text.replace("seed = 0", "seed = 1"),
    "a script": add_script,
    "a blank": lambda text: text + "\n",
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no notebook": lambda text: "[]",
    "no text": lambda text: "\udcff",
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_page_is_named_by_the_checker(page, capsys, how):
    assert check_chapters.main(str(page.parents[1])) == 0
    page.write_bytes(ALTERED[how](page.read_text()).encode("utf-8", "surrogateescape"))
    assert check_chapters.main(str(page.parents[1])) == 1
    assert "notebooks/first.ipynb: not the page that the run wrote" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["cut", "empty", "no notebook", "no text"])
def test_what_is_no_notebook_does_not_end_the_checker(page, how):
    page.write_bytes(ALTERED[how](page.read_text()).encode("utf-8", "surrogateescape"))
    (problem,) = check_chapters.problems(page)
    assert "cannot be read as a notebook" in problem


NO_STAMPS = [
    "", "{", "[]", "{}", "null", "3", '"key"', "[" * 100_000, '{"key": "k"}', '{"key": "k", "seconds": 1}',
    '{"key": "k", "seconds": "x", "page": "p"}', '{"key": "k", "seconds": NaN, "page": "p"}',
    '{"key": "k", "seconds": true, "page": "p"}', '{"key": "k", "seconds": -1, "page": "p"}', "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_STAMPS, ids=range(len(NO_STAMPS)))
def test_a_stamp_that_is_none_counts_as_none(page, capsys, text):
    page.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert stamps.read_stamp(page.with_suffix(".json")) == {}
    assert check_chapters.main(str(page.parents[1])) == 1
    assert "notebooks/first.ipynb: no stamp says that a run finished it" in capsys.readouterr().out


def test_a_stamp_of_another_page_or_none_at_all(page):
    noted = json.loads(page.with_suffix(".json").read_text())
    assert stamps.read_stamp(page.with_suffix(".json")) == noted
    page.with_suffix(".json").write_text(json.dumps({**noted, "page": ["x"]}))
    assert "not the page" in stamps.unproven(page)
    page.with_suffix(".json").unlink()
    page.with_suffix(".json").mkdir()
    assert "no stamp" in stamps.unproven(page)
    page.unlink()
    assert stamps.unproven(page) == "there is no page"


def test_an_altered_page_is_run_again(book):
    chapters = Book(book)
    told = []
    chapters.stage()
    assert chapters.run("notebooks/first", {"profile": "mini"}, "d", tell=told.append) == "ran"
    page = book / "_build" / "book" / "notebooks" / "first.ipynb"
    whole = page.read_text()
    for how in ("a script", "cut"):
        page.write_text(ALTERED[how](whole))
        assert not chapters.is_current("notebooks/first", {"profile": "mini"}, "d")
        assert chapters.run("notebooks/first", {"profile": "mini"}, "d", tell=told.append) == "ran"
        assert "<script>" not in page.read_text()
        assert chapters.run("notebooks/first", {"profile": "mini"}, "d", tell=told.append) == "current"
    assert told == []
    assert check_chapters.problems(page) == []
