import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from debias_utils import load_profile
from debias_utils.evaluate import grid, release

DECIDED = {"version": "0.1.0", "code": "abc", "weights": "def"}
WRITER = """
import sys
import numpy as np, pandas as pd
from debias_utils.evaluate import release
from pathlib import Path
value, folder = int(sys.argv[1]), Path(sys.argv[2])
tables = {name: pd.DataFrame({"x": np.full(100_000, value), "y": np.random.default_rng(value).random(100_000)}) for name in "ab"}
print("ready", flush=True)
while True:
    release.write(tables, decided={"version": "0.1.0"}, computed={"value": value}, folder=folder)
    if len(sys.argv) < 4: break
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


def tables(value=1.0):
    return {
        "table": pd.DataFrame({"job": ["nurse", "plumber"], "shift": [value, 2.0]}),
        "parts": pd.DataFrame({"seconds": [0.5], "part": ["CLIP"]}),
    }


def write(folder, value=1.0, **options):
    release.write(tables(value), **{"decided": DECIDED, "computed": {"machine": "here"}} | options, folder=folder)


def test_what_was_written_is_read(folder):
    write(folder)
    for name, table in tables().items():
        pd.testing.assert_frame_equal(release.read(name, folder=folder), table)
    index = release.read_index(folder)
    assert index["decided"] == DECIDED
    assert index["computed"]["machine"] == "here"
    assert index["tables"]["table"]["rows"] == 2
    with pytest.raises(ValueError, match="unknown released table 'curves'; choose one of: 'table', 'parts'"):
        release.read("curves", folder=folder)


def test_a_new_release_takes_the_place_of_the_old_one(folder):
    write(folder)
    write(folder, 7.0)
    assert release.read("table", folder=folder)["shift"].tolist() == [7.0, 2.0]
    assert len(list(folder.glob("*.parquet"))) == 2


def damaged(folder, change):
    (path,) = folder.glob("table-*.parquet")
    change(path)
    with pytest.raises(release.ReleaseError, match=r"table-.*parquet (is missing|was altered or cut short); .*`make tables`"):
        release.read("table", folder=folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: tables(9.0)["table"].to_parquet(path),
        lambda path: path.write_bytes(next(path.parent.glob("parts-*")).read_bytes()),
        lambda path: path.write_bytes(path.read_bytes().replace(b"nurse", b"nerds")),
    ],
)
def test_a_table_that_was_altered_is_named(folder, change):
    write(folder)
    damaged(folder, change)


def test_a_table_written_again_with_its_own_checksum_is_not_the_released_one(folder, tmp_path):
    write(folder)
    write(tmp_path / "other", 9.0)
    (forged,) = (tmp_path / "other").glob("table-*.parquet")
    damaged(folder, lambda path: path.write_bytes(forged.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace('"rows": 2', '"rows": 3'), "was altered"),
        (lambda text: text.replace('"code": "abc"', '"code": "abd"'), "was altered"),
        (lambda text: text.replace('"version": "0.1.0"', '"version": "0.0.9"'), r"is of version '0\.0\.9' of debias_utils"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "has format 2, not 1"),
    ],
)
def test_an_index_that_is_not_whole_says_why(folder, change, message):
    write(folder)
    path = folder / "index.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(release.ReleaseError, match=rf"index\.json {message}.*reinstall the package, or run `make tables`"):
        release.read("table", folder=folder)


def test_no_release_at_all(folder):
    with pytest.raises(release.ReleaseError, match=r"index\.json is missing; reinstall the package, or run `make tables`"):
        release.read("table", folder=folder)


def test_a_full_disk_leaves_the_old_release(folder, monkeypatch):
    write(folder)
    calls, fsync = [], os.fsync

    def full(file):
        calls.append(file)
        if len(calls) == 3:  # after the probe and one table
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(folder, 7.0)
    assert release.read("table", folder=folder)["shift"].tolist() == [1.0, 2.0]


def test_a_folder_that_cannot_be_written_is_named(folder):
    folder.write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to this folder .*results"):
        write(folder)


def test_a_table_without_rows_is_refused(folder):
    with pytest.raises(ValueError, match="the table 'table' has no rows"):
        release.write({"table": tables()["table"].head(0)}, decided=DECIDED, computed={}, folder=folder)
    assert not (folder / "index.json").exists()


def read_value(folder):
    """Both tables of whatever release is there; they must be of one."""
    found = [release.read(name, folder=folder) for name in "ab"]
    values = {*found[0]["x"], *found[1]["x"], release.read_index(folder)["computed"]["value"]}
    assert len(values) == 1
    return values.pop()


def test_killed_at_random_moments_one_whole_release_is_there(folder):
    def start(value, *more):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(value), str(folder), *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        process.stdout.readline()
        return process

    def finish(process):
        process.communicate()
        return process.returncode

    assert finish(start(1)) == 0
    rng = random.Random(0)
    process = start(2, "forever")
    for _ in range(3):
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert read_value(folder) in (1, 2)
        process = start(2, "forever")
    assert finish(start(3)) == 0  # two at once
    process.kill()
    finish(process)
    assert read_value(folder) in (2, 3)
    assert finish(start(4)) == 0
    assert read_value(folder) == 4
    assert len([path for path in folder.iterdir() if path.name != ".lock"]) == 3  # nothing is left of the others


def test_files_of_the_reader_s_own_stay(folder):
    write(folder)
    (folder / "my_own.parquet").write_text("mine")
    write(folder, 7.0)
    assert (folder / "my_own.parquet").read_text() == "mine"


def test_a_release_that_fails_leaves_no_files(folder, monkeypatch):
    write(folder)
    there = sorted(folder.iterdir())
    monkeypatch.setattr(release, "_write_index", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write(folder, 7.0)
    assert sorted(folder.iterdir()) == there


def test_a_proof_is_noted_unless_there_is_another_release_by_now(folder):
    write(folder)
    tables_then = release.read_index(folder)["tables"]
    release.record("rows", {"draw": "a"}, tables=tables_then, folder=folder)
    release.record("relevance", {"draw": "b"}, tables=tables_then, folder=folder)
    assert release.read_index(folder)["stands"] == {"rows": {"draw": "a"}, "relevance": {"draw": "b"}}
    write(folder, 7.0)
    release.record("rows", {"draw": "c"}, tables=tables_then, folder=folder)
    assert release.read_index(folder)["stands"] == {}
    assert release.read("table", folder=folder)["shift"].tolist() == [7.0, 2.0]


def test_a_release_changes_nothing_that_decides_rows(tmp_path):
    """Nothing but hidden files and tables lies in the folder, and none beside it."""
    write(tmp_path / "package" / "results")
    names = {path.name for path in (tmp_path / "package").rglob("*") if path.is_file()}
    assert {path.name for path in (tmp_path / "package").iterdir()} == {"results"}
    assert all(name == "index.json" or name.startswith(".") or release.OWN.fullmatch(name) for name in names)


def rows_of(cells):
    """Rows as a release holds them, with numbers that tell where they come from."""
    blocks = []
    for number, cell in enumerate(cells):
        strengths = [float("nan")] if cell["method"] == "Oracle" else cell["strengths"]
        index = pd.MultiIndex.from_product(
            [strengths, cell["occupations"], range(cell["people"])], names=["strength", "occupation", "person"]
        ).to_frame(index=False)
        same = {name: cell[name] for name in ("editor", "rho", "seed", "method", "variant")}
        blocks.append(index.assign(**same, options=json.dumps(cell["options"], sort_keys=True), cell=number))
    return pd.concat(blocks, ignore_index=True)


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.mark.parametrize("sweep", grid.SWEEPS)
@pytest.mark.parametrize(
    "which", [{}, {"editors": ["StyleCLIP"]}, {"seeds": [0]}, {"editors": ["InstructPix2Pix"], "seeds": [0, 2]}]
)
def test_rows_are_selected_as_they_would_be_computed(parts, sweep, which):
    released = rows_of(grid.cells(parts, sweep))
    wanted = grid.cells(parts, sweep, **which)
    found = release.select(released, wanted)
    pd.testing.assert_frame_equal(found.drop(columns="cell"), rows_of(wanted).drop(columns="cell"))


@pytest.mark.parametrize("which", [{"seeds": [1]}, {"people": 8}])
def test_rows_that_were_not_released_are_not_made_up(parts, which):
    released = rows_of(grid.cells(parts, "curves"))
    assert release.select(released, grid.cells(parts, "curves", **which)) is None
    assert release.select(released.iloc[1:], grid.cells(parts, "curves")) is None


def test_rows_of_some_people_of_a_cell(parts):
    cells = grid.cells(parts, "curves")
    released, cell = rows_of(cells), cells[5]
    some = {**cell, "occupations": cell["occupations"][:1], "who": [3, 7]}
    found = release.of_cell(released, some)
    assert set(found["cell"]) == {5}
    assert len(found) == 2 * len(cell["strengths"])
    assert np.array_equal(found["person"].unique(), [3, 7])
