"""Several processes, and processes that are killed: one download, nothing lost, nothing half used."""

from pathlib import Path

import pytest
from kills import DATA, kill_at_random, registry, start

from debias_utils import checkpoints


def test_three_processes_fetch_once(server):
    server.files["/model.bin"], server.slowly = DATA, 0.02
    running = [start(server, "unknown") for _ in range(3)]
    told = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({out for out, _ in told}) == 1
    assert Path(told[0][0].strip()).read_bytes() == DATA
    assert [asked.start for asked in server.asked] == [0]


@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_a_process_that_was_killed_before_it_could_write_that_all_is_well(server, kind):
    """Between giving a file its name and noting it: it is hashed again, not fetched again."""
    server.files["/model.bin"] = DATA
    path = checkpoints.fetch("model", progress=False, registry=registry(server, kind))
    (path.parent / "verified.json").unlink()
    assert checkpoints.files("model", registry=registry(server, kind)) == []
    assert checkpoints.fetch("model", progress=False, registry=registry(server, kind)) == path
    assert [asked.start for asked in server.asked] == [0]


@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_killed_at_random_moments(server, kind):
    kill_at_random(server, kind, 2, seed=len(kind))
