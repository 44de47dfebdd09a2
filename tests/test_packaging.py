"""What other machines install and check out: pins, line endings, ranges."""

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, for which pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
DEBIAN = "3.11.2"  # Debian 12's own Python


def small(path):
    return path.is_file() and path.stat().st_size < 300_000


def test_a_clone_that_wants_windows_line_endings_changes_no_byte(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    files = [".gitattributes", ".ci/run", "Makefile", "pyproject.toml", "notebooks/ranking.ipynb", "docs/toonville.png"]
    for folder in ("src/debias_utils/weights", "tests/fixtures"):
        files += [str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if small(path)]
    for file in files:
        (one / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, one / file)
    mixed = "src/debias_utils/weights/of-another-hand.json"  # a checksum would hold for these very bytes
    (one / mixed).write_bytes(b"{\r\n}\n")
    windows = ["-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "--all", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", "-C", str(one), *windows, *command], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", str(one), str(two)], check=True, capture_output=True)
    assert [file for file in [*files, mixed] if (one / file).read_bytes() != (two / file).read_bytes()] == []
    state = ["git", "-C", str(two), "status", "--porcelain"]
    assert subprocess.run(state, check=True, capture_output=True, text=True).stdout == ""


def test_every_pin_runs_on_the_python_of_debian():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert len(pins) > 150
    too_new, seen = [], 0
    for name, version in pins.items():
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        if about["Version"] == version:
            seen += 1
            if DEBIAN not in SpecifierSet(about["Requires-Python"] or ""):
                too_new.append(f"{name}=={version} needs Python {about['Requires-Python']}")
    assert too_new == []
    assert seen > 0.9 * len(pins)  # these are the versions that are installed here


def test_pins_lie_in_the_ranges_and_ranges_start_at_what_was_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {
        name.lower().replace("_", "-"): version
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    }
    for text in [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate():  # tomli is for Python 3.10
            assert pins[wanted.name.lower().replace("_", "-")] in wanted.specifier
        assert any(each.operator == ">=" for each in wanted.specifier), f"{text} has no lower bound to test"
