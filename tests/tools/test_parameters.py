"""Values from the command line have the type that a chapter declares, or are refused; YAML's surprises are no values."""

import nbformat
import pytest
import small_book

import parameters
import run_chapters
from book import Book

book = small_book.book


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("10", "0", 10),
        ("-3", "0", -3),
        ("010", "'a'", "010"),
        ("no", "'mini'", "no"),
        ("null", "'mini'", "null"),
        ("1:30", "'a'", "1:30"),
        ("", "'a'", ""),
        ("2", "0.5", 2.0),
        ("1e-3", "0.5", 1e-3),
        ("False", "True", False),
        ("[3, 4]", "[0, 1, 2]", [3, 4]),
        ("(0.5,)", "(0.1, 0.9)", (0.5,)),
    ],
)
def test_a_value_has_the_type_of_the_default(text, default, value):
    found = parameters.parse("x", text, default)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        *(
            (text, "0")
            for text in ("010", "no", "yes", "true", "True", "1.0", "1e3", "1:30", "~", "", "null", "'1'", "[1]", "0o")
        ),
        *((text, "0.5") for text in ("nan", ".inf", "1e999", "half", "True")),
        *((text, "True") for text in ("no", "on", "1", "true")),
        *((text, "[0, 1]") for text in ("0", "[]", "[0, True]", "[0, no]", "[01]", "['a']", "0, 1", "[[0]]")),
        ("[" * 5000, "0"),
        ("1", "range(3)"),
    ],
)
def test_other_types_are_refused_in_one_sentence(text, default):
    with pytest.raises(ValueError, match="the parameter x must be written like ") as error:
        parameters.parse("x", text, default)
    assert default in str(error.value)
    assert repr(text) in str(error.value)


def test_the_cell_is_read_by_python_itself():
    cell = 'a = "#fff"  # a colour\nb: int = 3\nc = [\n    1,  # one\n    2,\n]\nprint(a)\nd = a.upper()'
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, metadata={"tags": ["parameters"]})])
    assert parameters.declared(made) == {"a": "'#fff'", "b": "3", "c": "[1, 2]", "d": "a.upper()"}
    assert parameters.declared(nbformat.v4.new_notebook()) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "size", "010"], "the parameter size must be written like 3, got '010'"),
        (["-p", "size", "no"], "the parameter size must be written like 3, got 'no'"),
        (["-p", "profile", "huge"], "unknown profile 'huge'; choose one of: 'mini'"),
        (["--profile", "mini", "-p", "profile", "mini"], "the parameter profile is given twice: 'mini' and 'mini'"),
        (["-p", "size", "1", "-p", "size", "2"], "the parameter size is given twice: '1' and '2'"),
        (["--workers", "0"], "the number of workers must be a whole number of at least 1, got 0"),
        (["--workers", "two"], "invalid int value: 'two'"),
    ],
)
def test_the_command_refuses_before_anything_runs(book, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run_chapters.main(arguments, root=book)
    assert message in capsys.readouterr().err
    assert not (book / "_build").exists()


def test_a_chapter_gets_what_it_declares(book):
    options = run_chapters.arguments(["-p", "size", "5"])
    chosen, given = run_chapters.choose(Book(book), options)
    assert chosen == ["notebooks/first", "notebooks/second"]
    assert given == {"notebooks/first": {"profile": "mini"}, "notebooks/second": {"profile": "mini", "size": 5}}
    assert run_chapters.choose(Book(book), run_chapters.arguments(["second", "second"]))[0] == ["notebooks/second"]
