"""The address is that of a repository, or nothing is changed."""

import pytest

import repository


@pytest.fixture
def root(tmp_path):
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://example.org/a/b\n")
    (tmp_path / "README.md").write_bytes(
        b"https://example.org/a/b.\r\ngit+https://example.org/a/b.git https://example.org/a/b/issues "
        b"https://example.org/a/b-more https://example.org/a/bc https://example.org/a/b.js\r\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / ".#x.md").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_every_copy_and_no_longer_name(root):
    assert repository.main("https://github.com/me/my.book_1", root) == 0
    assert "url: https://github.com/me/my.book_1\n" in (root / "_config.yml").read_text()
    new = b"https://github.com/me/my.book_1"
    assert (root / "README.md").read_bytes() == (
        new + b".\r\ngit+" + new + b".git " + new + b"/issues "
        b"https://example.org/a/b-more https://example.org/a/bc https://example.org/a/b.js\r\n"
    )
    assert not [path for path in root.rglob("*.part")]
    assert repository.files(root)[-1].name == "_config.yml"  # a run that was cut off still knows the old address


@pytest.mark.parametrize(
    "url",
    [
        "", "github.com/you/book", "http://github.com/you/book", "git@github.com:you/book", "https://github.com", "https://github.com/",
        "https://github.com/you", "https://github.com/you/", "https://github.com/you/book/", "https://github.com/you/book.git",
        "https://github.com/you/book/tree/main/docs", "https://gitlab.com/group/sub/book", "https://github.com//book",
        "https://github.com/you/book?tab=readme", "https://github.com/you/book#top", "https://me:secret@github.com/you/book",
        "https://github.com/you/..", "https://github.com/../book", "https://github.com/you/b ook", " https://github.com/you/book",
        "https://github.com/you/book\n", "https://github.com/you/bücher", "https://github/you/book", "https://github.com:443/you/book",
        "https://github.com/you/.git",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_in_one_sentence(root, capsys, url):
    before = {path: path.read_bytes() for path in root.iterdir() if path.is_file()}
    assert repository.main(url, root) == 1
    out = capsys.readouterr().out
    assert out.startswith("the address must be that of the repository itself")
    assert out.rstrip("\n").endswith(f"got {url!r}")
    assert {path: path.read_bytes() for path in before} == before


def test_without_a_setting(root, capsys):
    (root / "_config.yml").write_text("repository: [")
    assert repository.main("https://github.com/you/book", root) == 1
    assert "names no repository" in capsys.readouterr().out
