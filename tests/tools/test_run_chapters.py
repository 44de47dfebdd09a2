"""The chain, with real papermill and a real kernel, on a book of two small chapters."""

import nbformat
import pytest
import small_book
from small_book import notebook

import check_chapters
import check_site
import repository
import run_chapters

book = small_book.book
pytestmark = pytest.mark.filterwarnings("ignore")  # of papermill and the Jupyter machinery


def run(book, capsys, *arguments):
    code = run_chapters.main([*arguments], root=book)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "notebooks/" in line]
    return code, {line[-1].split("/")[-1]: line[0] for line in lines}


def test_run_skip_change_and_go_on(book, capsys):
    assert run(book, capsys) == (0, {"first": "ran", "second": "ran"})
    staged = book / "_build" / "book"
    assert check_chapters.main(str(staged)) == 0
    assert (staged / "notebooks" / "plain.md").exists()
    text = (staged / "notebooks" / "first.ipynb").read_text()
    assert "measured on" in text
    assert "remove-cell" in text  # the cell that papermill added
    assert "outputs" in text
    assert "<!-- minutes -->" in (book / "notebooks" / "first.ipynb").read_text()  # the source is untouched

    assert run(book, capsys) == (0, {"first": "current", "second": "current"})
    assert run(book, capsys, "-p", "size", "5") == (0, {"first": "current", "second": "ran"})

    (staged / "notebooks" / "second.json").unlink()  # as if cut off before the second chapter was finished
    assert run(book, capsys, "-p", "size", "5") == (0, {"first": "current", "second": "ran"})
    (book / "src" / "module.py").write_text("one = 2\n")
    assert run(book, capsys, "first") == (0, {"first": "ran"})


def test_failing_chapter_names_its_cell_and_the_others_still_run(book, capsys):
    nbformat.write(notebook("x = 1", "x / 0"), book / "notebooks" / "first.ipynb")
    code = run_chapters.main([], root=book)
    captured = capsys.readouterr()
    assert code == 1
    assert "notebooks/first: cell" in captured.err
    assert "ZeroDivisionError: division by zero; see _build/failed/notebooks/first.ipynb" in captured.err
    failed = nbformat.read(book / "_build" / "failed" / "notebooks" / "first.ipynb", as_version=4)
    assert any(output.output_type == "error" for cell in failed.cells if cell.cell_type == "code" for output in cell.outputs)
    assert not (book / "_build" / "book" / "notebooks" / "first.ipynb").exists()
    assert (book / "_build" / "book" / "notebooks" / "second.ipynb").exists()
    nbformat.write(notebook("x = 1"), book / "notebooks" / "first.ipynb")
    assert run(book, capsys) == (0, {"first": "ran", "second": "current"})


def test_a_dead_kernel_stops_one_chapter_only(book, capsys):
    nbformat.write(notebook("x = 1", "import os", "os._exit(1)"), book / "notebooks" / "first.ipynb")
    code = run_chapters.main([], root=book)
    captured = capsys.readouterr()
    assert code == 1
    assert "notebooks/first: DeadKernelError after cell" in captured.err
    assert "ran" in captured.out.splitlines()[-1]


def test_a_stamp_that_was_cut_off_is_no_stamp(book, capsys):
    assert run(book, capsys, "first")[1] == {"first": "ran"}
    (book / "_build" / "book" / "notebooks" / "first.json").write_text("{")
    assert run(book, capsys, "first")[1] == {"first": "ran"}


def test_a_failure_takes_the_old_page_out_of_the_book(book, capsys):
    run(book, capsys)
    nbformat.write(notebook("x / 0"), book / "notebooks" / "first.ipynb")
    assert run(book, capsys)[1] == {"first": "FAILED", "second": "current"}
    assert check_chapters.main(str(book / "_build" / "book")) == 1
    assert "notebooks/first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "colour", "red"], "no chapter declares the parameter 'colour'; declared: profile, size"),
        (["--profile", "huge"], "unknown profile 'huge'; choose one of: 'mini'"),
        (["third"], "unknown chapter 'third'; choose from: first, second"),
    ],
)
def test_bad_input(book, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run_chapters.main(arguments, root=book)
    assert message in capsys.readouterr().err
    assert not (book / "_build").exists()


def executed(*sources, counts=None, alt=None, html=None):
    made = nbformat.v4.new_notebook()
    for i, source in enumerate(sources):
        cell = nbformat.v4.new_code_cell(source, execution_count=(counts or range(1, 99))[i])
        if alt is not None:
            cell.outputs.append(nbformat.v4.new_output("display_data", {"image/png": "aa"}))
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
        if html:
            cell.outputs.append(nbformat.v4.new_output("display_data", {"text/html": html}))
        made.cells.append(cell)
    return made


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (executed("a", "b"), None),
        (executed("a", "b", counts=[1, 3]), "cell 1: execution count 3, expected 2"),
        (executed("a", "b", counts=[1, None]), "cell 1: execution count None"),
        (executed("a", "b", counts=[2, 1]), "cell 0: execution count 2, expected 1"),
        (executed(), "has no code cell"),
        (executed("a", alt=""), "cell 0: a figure without alt text"),
        (executed("a", alt="_images/x y z w.png"), "cell 0: a figure without alt text"),
        (executed("a", alt="bars of the shares of four groups"), None),
        (executed("a", html='<img src="data:,">'), "cell 0: a picture with the alt text None"),
        (executed("a", html='<img alt="Figure 1" src="data:,">'), "cell 0: a picture with the alt text 'Figure 1'"),
    ],
)
def test_chapter_checker(tmp_path, made, problem):
    path = tmp_path / "n.ipynb"
    nbformat.write(made, path)
    found = check_chapters.problems(path)
    assert found == [] if problem is None else any(problem in text for text in found)


def test_chapter_checker_sees_errors(tmp_path):
    made = executed("a")
    made.cells[0].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="bad", traceback=[]))
    nbformat.write(made, tmp_path / "n.ipynb")
    assert check_chapters.problems(tmp_path / "n.ipynb") == ["cell 0: ValueError: bad"]


def test_chapter_checker_wants_solutions_to_pass_and_stubs_to_be_open(tmp_path):
    made = executed("answer = ...", "check(1, 1)")
    made.cells[1].metadata["tags"] = ["solution"]
    nbformat.write(made, tmp_path / "n.ipynb")
    assert check_chapters.problems(tmp_path / "n.ipynb") == [
        "cell 0: an exercise that does not say that it is open",
        "cell 1: a solution that does not pass its own check",
    ]
    made.cells[0].outputs = [nbformat.v4.new_output("stream", text="Not answered yet: ...")]
    made.cells[1].outputs = [nbformat.v4.new_output("stream", text="Right!")]
    nbformat.write(made, tmp_path / "n.ipynb")
    assert check_chapters.problems(tmp_path / "n.ipynb") == []


def test_site_checker(book, capsys):
    site = book / "site"
    (site / "notebooks").mkdir(parents=True)
    for name in ("index", "notebooks/first", "notebooks/second", "notebooks/plain"):
        (site / f"{name}.html").write_text('<main id="top"><a href="#top">up</a></main>')
    assert check_site.main(str(site), book) == 0
    (site / "notebooks" / "first.html").write_text(
        '<a href="second.html#nowhere">a</a><a href="third.html">b</a><img src="none.png"><script src="https://cdn.example.org/x.js"></script>'
        '<a href="https://example.org">fine</a>'
    )
    assert check_site.main(str(site), book) == 1
    out = capsys.readouterr().out
    for text in (
        "second.html#nowhere names no place",
        "third.html leads nowhere",
        "none.png leads nowhere",
        "x.js needs the network",
    ):
        assert text in out
    assert "example.org leads" not in out
    (site / "notebooks" / "plain.html").unlink()
    assert check_site.missing(site, book) == ["notebooks/plain.html was not built"]


def test_repository_is_one_setting(book, capsys):
    made = notebook('"git+https://example.org/a/b"')
    nbformat.write(made, book / "notebooks" / "first.ipynb")
    assert repository.main("https://github.com/me/mine", book) == 0
    assert "git+https://github.com/me/mine" in (book / "notebooks" / "first.ipynb").read_text()
    assert "url: https://github.com/me/mine" in (book / "_config.yml").read_text()
    assert repository.main("not an address", book) == 1
    assert "got 'not an address'" in capsys.readouterr().out
