"""Chapters side by side, with real kernels: whatever ends, nothing half finished is left, and nothing runs on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import small_book
from filelock import FileLock
from small_book import notebook

import book as book_module
import kernel
import run_chapters

book = small_book.book
pytestmark = pytest.mark.filterwarnings("ignore")  # of papermill and the Jupyter machinery
TOOLS = Path(run_chapters.__file__).parent
MEET = """import pathlib, time
here, other = pathlib.Path({here!r}), pathlib.Path({other!r})
here.touch()
end = time.time() + 60
while not other.exists() and time.time() < end:
    time.sleep(0.05)
assert other.exists()"""


def write(root, name, *cells):
    nbformat.write(notebook(*cells), root / "notebooks" / f"{name}.ipynb")


def printed(root, name):
    cells = nbformat.read(root / "_build" / "book" / "notebooks" / f"{name}.ipynb", as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_two_chapters_run_at_once_and_one_that_dies_ends_no_other(book, capsys):
    write(book, "first", MEET.format(here=str(book / "a"), other=str(book / "b")), "import os\nos.kill(os.getppid(), 9)")
    write(
        book,
        "second",
        MEET.format(here=str(book / "b"), other=str(book / "a")),
        "import os, sys\nprint(sys.executable, os.environ['OMP_NUM_THREADS'])",
    )
    assert run_chapters.main(["--workers", "2"], root=book) == 1
    captured = capsys.readouterr()
    assert "2 of 2 chapters will run, with 1 thread each: less than a minute on" in captured.out
    assert "notebooks/first: its process was killed by signal 9, perhaps for want of memory" in captured.err
    for line in ("first: started (2 of 2)", "second: started (1 of 2)", "second: ran ("):  # the larger one first
        assert f"notebooks/{line}" in captured.err
    assert printed(book, "second").split() == [sys.executable, "1"]
    assert not (book / "_build" / "book" / "notebooks" / "first.ipynb").exists()


def test_this_python_runs_the_chapters_whatever_python3_means(book, tmp_path, monkeypatch, capsys):
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {
        "argv": ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write(book, "first", "import sys\nprint(sys.executable)")
    assert run_chapters.main(["first"], root=book) == 0
    assert printed(book, "first").split() == [sys.executable]


def test_braces_in_a_folder_s_name(book, tmp_path):
    (tmp_path / "{x}").mkdir()
    for name in ("notebooks", "src", "_toc.yml"):
        (book / name).rename(tmp_path / "{x}" / name)
    assert run_chapters.main(["first"], root=tmp_path / "{x}") == 0


def test_threads_are_one_unless_asked(monkeypatch):
    for name in kernel.LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert set(kernel.ThisPython().kernel_spec.env.values()) == {"1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert set(kernel.ThisPython().kernel_spec.env.values()) == {"3"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_however_the_runner_ends_nothing_runs_on_and_no_page_is_half(book, how):
    write(book, "first", "import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\nwhile True:\n    pass")
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs inherit that it is ignored
    )
    command += f"import sys, pathlib, run_chapters; sys.exit(run_chapters.main(['first'], root=pathlib.Path({str(book)!r})))"
    runner = subprocess.Popen(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), *sys.path])}
    )
    pid = book / "notebooks" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text(), seconds=120)
    below = psutil.Process(runner.pid).children(recursive=True)
    assert int(pid.read_text()) in [process.pid for process in below]
    try:
        runner.send_signal(how)
        assert runner.wait(30) == (130 if how == signal.SIGINT else -how)
        wait_for(lambda: not [process for process in below if process.is_running() and process.status() != "zombie"], seconds=30)
    finally:  # a kernel that runs on would slow down all that comes after
        for process in (runner, *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        runner.wait()
    staged = book / "_build" / "book" / "notebooks"
    assert not [path for path in staged.rglob("first*")]


def wait_for(what, *, seconds):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_runs_do_not_meet(book, capsys):
    (book / "_build").mkdir()
    with FileLock(book / "_build" / "run.lock"):
        assert run_chapters.main([], root=book) == 1
    assert "another run is at work in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "order", "text"),
    [
        ({"a": 1.0, "b": 300.0, "c": 60.0}, "bca", "about 5 minutes on"),
        ({"a": None, "b": 240.0, "c": None}, "abc", "2 of them were never measured here"),
        ({"a": 20.0, "b": 10.0}, "ab", "less than a minute"),
        ({"a": None, "b": None}, "ab", "2 of them were never measured here"),
        ({"a": 90.0, "b": 90.0, "c": 90.0}, "abc", "about 3 minutes"),
    ],
)
def test_the_longest_first_and_how_long_that_takes(seconds, order, text):
    found, said = run_chapters.plan(seconds, workers=2)
    assert "".join(found) == order
    assert text in said
    assert "2 at a time" in said


def test_the_workers_fit_into_cores_and_memory(monkeypatch):
    monkeypatch.setattr(run_chapters, "cpu_count", lambda: 16)
    for gb, workers in ((1, 1), (8, 3), (500, 16)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda gb=gb: type("memory", (), {"available": gb * 1e9}))
        assert run_chapters.default_workers() == workers


def block(root, what):
    target = root / what
    if what.endswith("/"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("in the way")
    else:
        (target / "x").mkdir(parents=True)


@pytest.mark.parametrize(
    "what",
    [
        "_build/", "_build/book/", "_build/failed/", "_build/book/_toc.yml", "_build/book/notebooks/first.ipynb",
        "_build/book/notebooks/first.json", "_build/book/notebooks/plain.md", "_build/failed/notebooks/first.ipynb",
        "_build/run.lock", "_build/book/notebooks/first.part",
    ],
)  # fmt: skip
def test_what_lies_in_the_way_is_named_in_one_sentence(book, capsys, what):
    block(book, what)
    assert run_chapters.main(["first"], root=book) == 1
    err = capsys.readouterr().err
    (sentence,) = [line for line in err.splitlines() if "cannot use" in line]
    assert str(book / what.rstrip("/")) in sentence
    assert "must be writable and have room" in sentence
    assert "Traceback" not in err


def test_a_full_disk_names_the_folder(tmp_path):
    error = OSError(28, "No space left on device")
    advice = f"the book is built under {tmp_path}, which must be writable and have room"
    assert book_module.cannot_use(error, tmp_path) == f"cannot use {tmp_path}: No space left on device; {advice}"
    assert book_module.cannot_use(PermissionError(13, "Permission denied", "/x"), tmp_path) == "cannot use /x: Permission denied"


def test_no_home(book, monkeypatch, capsys):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(SystemExit):
        run_chapters.main([], root=book)
    assert "set HOME for the kernels, and DEBIAS_UTILS_CACHE" in capsys.readouterr().err
