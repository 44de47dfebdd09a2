"""What makes chapters stale: what the package consists of, and nothing that editors leave beside it."""

import subprocess
from pathlib import Path

import pytest
import small_book

import run_chapters
from book import Book

book = small_book.book
LEFT = [
    "module.py~", "#module.py#", ".#module.py", ".module.py.swp", "module.py.swp", "module.py.orig", "module.py.bak", "4913",
    ".DS_Store", ".ipynb_checkpoints/module-checkpoint.py", "__pycache__/module.cpython-311.pyc", "__pycache__/odd.py",
    ".idea/x.py", "notes.txt", "weights/a/.DS_Store", "weights/a/config.json~",
    "weights/.ipynb_checkpoints/config-checkpoint.json", "weights/a/Thumbs.db", "weights/a/w.part",
    "debias_utils.egg-info/SOURCES.txt",
]  # fmt: skip


@pytest.fixture
def source(book):
    for name in ("weights/manifest.json", "weights/a/config.json", "toonville/props/nurse.svg", "deep/er/code.py"):
        (book / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (book / "src" / name).write_text("1")
    return book / "src"


def test_what_editors_leave_does_not_count(source):
    before = run_chapters.dependencies_hash(source)
    for name in LEFT:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("left")
        assert run_chapters.dependencies_hash(source) == before, name


@pytest.mark.parametrize("name", [".#lock.py", "lost.py", "weights/lost.json", "weights/loop"])
def test_links_that_lead_nowhere_do_not_count_or_stop_a_run(source, name):
    before = run_chapters.dependencies_hash(source)
    (source / name).symlink_to(name if name.endswith("loop") else "somebody@machine.4711:1")
    assert run_chapters.dependencies_hash(source) == before


@pytest.mark.parametrize(
    "name",
    [
        "module.py",
        "deep/er/code.py",
        "weights/manifest.json",
        "weights/a/config.json",
        "toonville/props/nurse.svg",
        "new.py",
        "weights/b",
    ],
)
def test_every_file_of_the_package_counts(source, name):
    before = run_chapters.dependencies_hash(source)
    (source / name).write_text("changed")
    assert run_chapters.dependencies_hash(source) != before


def test_a_file_moved_or_exchanged_counts(source):
    before = run_chapters.dependencies_hash(source)
    (source / "module.py").rename(source / "renamed.py")
    assert run_chapters.dependencies_hash(source) != before


def test_every_file_under_version_control_counts(monkeypatch):
    """But for cards of text: nothing that the package ships can change without the chapters noticing."""
    root = Path(run_chapters.__file__).parents[1]
    listed = subprocess.run(["git", "ls-files", "src"], cwd=root, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("no clone here")
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or whole(path))
    run_chapters.dependencies_hash(root / "src")
    assert {root / name for name in listed} <= set(read)


def test_what_editors_leave_beside_the_pages_does_not_stop_staging(book):
    (book / "_static").mkdir()
    (book / "_static" / "book.css").write_text("a")
    (book / "_static" / "book.css~").write_text("b")
    (book / "_static" / ".#book.css").symlink_to("somebody@machine.4711:1")
    (book / "_static" / "lost.css").symlink_to("nowhere")
    Book(book).stage()
    assert [path.name for path in (book / "_build" / "book" / "_static").iterdir()] == ["book.css"]


def test_staging_drops_what_killed_runs_left_and_nothing_else(book):
    chapters = Book(book)
    chapters.stage()
    staged, failed = chapters.staging / "notebooks", chapters.failed / "notebooks"
    failed.mkdir(parents=True)
    kept = [
        staged / "first.ipynb",
        staged / "first.json",
        staged / "plain.md",
        failed / "first.ipynb",
        book / "notebooks" / "own.part",
    ]
    left = [
        staged / "first.part",
        staged / "gone.ipynb",
        staged / "gone.json",
        chapters.staging / "_toc.yml.part",
        failed / "gone.ipynb",
    ]
    for path in kept + left:
        path.write_text("x")
    chapters.stage()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in left)
