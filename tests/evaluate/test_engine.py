import errno
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sweep_cells
from pandas.testing import assert_frame_equal
from sweep_cells import DESCRIPTION, TOKEN, computed, fails, gpu_rows, grid, hangs_once, rows, torch_rows

from debias_utils.evaluate.engine import sweep
from debias_utils.evaluate.on_ray import check_reachable


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sweep"


@pytest.fixture(scope="module", autouse=True)
def ray_settings():
    """Before Ray is imported: where its workers find these cells, and a token, or Ray would leave one in the user's home."""
    path = os.pathsep.join([str(Path(sweep_cells.__file__).parent), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PYTHONPATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}.items():
            patch.setenv(name, value)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        yield


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray with two cores that was started by its command."""
    address = f"127.0.0.1:{free_port()}"
    options = ["--head", "--block", "--include-dashboard=false", "--num-cpus=2", f"--port={address.split(':')[1]}"]
    command = [f"{sysconfig.get_path('scripts')}/ray", "start", *options]
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: listens(address))
    yield address
    head.terminate()
    head.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def listens(address):
    with socket.socket() as probe:
        host, port = address.split(":")
        return probe.connect_ex((host, int(port))) == 0


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)


def start(folder, count, seconds, engine="local"):
    """Another process that computes the grid."""
    command = [sys.executable, sweep_cells.__file__, folder, count, seconds, engine]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def run(cells, compute=rows, *, folder, description=DESCRIPTION, progress=False, **options):
    return sweep(cells, compute, folder=folder, description=description, progress=progress, **options)


def expected(cells):
    return pd.concat([rows(cell) for cell in cells], ignore_index=True)


def kept(folder):
    return sorted(folder.glob("*.parquet"))


def test_all_rows_in_the_order_of_the_cells_and_none_computed_twice(folder, tmp_path):
    cells = grid(folder, 7)
    assert_frame_equal(run(cells[:4], folder=folder), expected(grid(tmp_path / "other", 4)), check_exact=True)
    mixed = [cells[i] for i in (6, 1, 0, 5, 3, 2, 4)]
    other = [grid(tmp_path / "other", 7)[i] for i in (6, 1, 0, 5, 3, 2, 4)]
    assert_frame_equal(run(mixed, folder=folder), expected(other), check_exact=True)
    assert computed(folder) == [0, 1, 2, 3, 6, 5, 4]
    assert len(kept(folder)) == 7


def test_a_complete_sweep_is_read_and_nothing_written(folder):
    cells = grid(folder, 2)
    first = run(cells, folder=folder)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    assert_frame_equal(run(cells, folder=folder), first, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before


def test_rows_of_finished_cells_do_not_stay_in_memory(folder):
    made = []

    def compute(cell):
        assert not [ref for ref in made if ref() is not None]
        table = rows(cell)
        made.append(weakref.ref(table))
        return table

    run(grid(folder, 3), compute, folder=folder)
    assert len(made) == 3


def test_the_bar_begins_where_the_last_run_ended(folder, capsys):
    run(grid(folder, 2), folder=folder)
    run(grid(folder, 5), folder=folder, progress=True)
    bar = capsys.readouterr().err
    assert "| 2/5 " in bar
    assert "| 5/5 " in bar
    assert "| 0/5 " not in bar


def test_killed_again_and_again_it_still_ends_with_the_same_rows(folder, tmp_path):
    count, kills, rng = 30, 5, random.Random(0)
    for _ in range(kills):
        before = len(kept(folder))
        process = start(folder, count, 0.03)
        wait_for(lambda before=before: len(kept(folder)) > before)
        time.sleep(rng.uniform(0, 0.06))  # in the middle of a cell, of a file, between the two
        kill(process)
    done = len(kept(folder))
    assert kills <= done < count
    (folder / "notes.part").write_bytes(b"PAR1")  # not the engine's
    found = run(grid(folder, count, seconds=0.03), folder=folder)
    assert_frame_equal(found, expected(grid(tmp_path / "other", count)), check_exact=True)
    assert len(computed(folder)) <= count + kills  # each kill costs one cell at most
    assert len(kept(folder)) == count
    assert [path.name for path in folder.glob("*.part")] == ["notes.part"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


def swap(path):
    path.write_bytes(kept(path.parent)[0].read_bytes())


@pytest.mark.parametrize("damage", [cut, empty, swap, Path.unlink])
def test_a_damaged_file_is_not_trusted(folder, damage):
    cells = grid(folder, 3)
    whole = run(cells, folder=folder)
    damage(kept(folder)[1])
    assert_frame_equal(run(cells, folder=folder), whole, check_exact=True)
    assert len(computed(folder)) == 4


def test_any_single_flipped_bit_is_noticed(folder):
    cells = grid(folder, 1)
    run(cells, folder=folder)
    (path,), rng = kept(folder), random.Random(1)
    data = path.read_bytes()
    for times, place in enumerate(rng.sample(range(len(data)), 40), 2):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
        run(cells, folder=folder)
        assert len(computed(folder)) == times
    assert len(pd.read_parquet(path)) == 5  # and yet it is a file as any other


def test_rows_of_another_description_are_not_read(folder):
    cells = grid(folder, 2)
    run(cells[:1], folder=folder)
    with pytest.raises(ValueError, match=r"weights: 'abc' there, absent here; width: absent there, 96 here\); choose another"):
        run(cells, folder=folder, description={"version": 1, "width": 96})
    with pytest.raises(ValueError, match="version: 1 there, True here"):
        run(cells, folder=folder, description={**DESCRIPTION, "version": True})
    assert computed(folder) == [0]
    run(cells, folder=folder, description=dict(reversed(DESCRIPTION.items())))
    assert computed(folder) == [0, 1]


@pytest.mark.parametrize("content", [b'{"version": 1, "wei', b"[1]", b"\xff"])
def test_a_description_that_cannot_be_read(folder, content):
    run(grid(folder, 1), folder=folder)
    (folder / "sweep.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"sweep\.json cannot be read .* choose another folder, or delete this one"):
        run(grid(folder, 1), folder=folder)


def test_without_a_description_no_rows_are_trusted(folder):
    run(grid(folder, 2), folder=folder)
    (folder / "sweep.json").unlink()
    run(grid(folder, 2)[:1], folder=folder, description={"version": 2})
    run(grid(folder, 2), folder=folder, description={"version": 2})
    assert computed(folder) == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "name", ["notes.parquet", "notes.part", "writer.json", "writer.lock", f"{'a' * 64}.parquet/deeper", f"{'a' * 63}g.parquet"]
)
def test_a_folder_of_somebody_s_own_is_refused_and_left_alone(folder, name):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    with pytest.raises(ValueError, match=rf"sweep holds files that are not of a sweep \({name.split('/')[0]}\); choose an empty"):
        run(grid(folder, 2), folder=folder)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    assert computed(folder) == []


def test_files_beside_the_rows_of_a_sweep_are_left_alone(folder):
    run(grid(folder, 2), folder=folder)
    for name in ("notes.parquet", "notes.part", "table.csv"):
        (folder / name).write_text("mine")
    run(grid(folder, 3), folder=folder)
    assert all((folder / name).read_text() == "mine" for name in ("notes.parquet", "notes.part", "table.csv"))


def test_what_a_run_left_that_was_cut_off_early_is_its_own(folder):
    folder.mkdir()
    (folder / "writer.lock").touch()
    (folder / "writer.json").write_text('{"pid": 1, "host": "here"}')
    (folder / f"{'b' * 64}.parquet").write_bytes(b"half")
    for name in ("sweep.json", "writer.json", "probe"):  # a kill while these were written
        (folder / f"{name}.01234567-1-{'c' * 32}.part").write_bytes(b"half")
    run(grid(folder, 2), folder=folder)
    assert len(kept(folder)) == 2


def test_one_writer_at_a_time_and_the_dead_do_not_count(folder):
    process = start(folder, 2, 1.5)
    wait_for(lambda: len(kept(folder)) == 1)
    cells = grid(folder, 2, seconds=1.5)
    run(cells[:1], folder=folder)  # reading is free
    with pytest.raises(RuntimeError, match=f"sweep is being written by process {process.pid} on {socket.gethostname()}; wait"):
        run(cells, folder=folder)
    kill(process)
    assert len(run([{**cells[1], "seconds": 0}], folder=folder)) == 6
    assert not (folder / "writer.json").exists()


def test_a_full_disk_keeps_what_is_finished(folder, monkeypatch):
    calls, fsync = [], os.fsync

    def full(file):
        calls.append(file)
        if len(calls) == 5:  # after the writer's name, the description and two cells
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*choose another.*sweep"):
        run(grid(folder, 4), folder=folder)
    assert len(kept(folder)) == 2
    assert not list(folder.glob("*.part"))
    run(grid(folder, 4), folder=folder)
    assert computed(folder) == [0, 1, 2, 2, 3]


def test_a_disk_that_is_full_is_found_out_before_anything_is_computed(folder, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write to this folder .No space left on device.; choose another"):
        run(grid(folder, 2), folder=folder)
    assert computed(folder) == []


@pytest.mark.parametrize("below", [".", "deeper"])
def test_a_folder_that_cannot_be_one(folder, below):
    folder.write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to this folder.*choose another.*sweep"):
        run(grid(folder, 2), folder=folder / below)
    assert computed(folder) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.assign(shift=np.where(table.index < 2, np.nan, 1.0)),
            "2 of 6 values of 'shift' are NaN or infinite",
        ),
        (lambda table: table.assign(score=-np.inf), "6 of 6 values of 'score' are NaN or infinite"),
        (lambda table: table.drop(columns="shift"), "no column 'shift' came of"),
        (lambda table: table.head(0), "no rows came of"),
    ],
)
def test_rows_that_are_not_what_they_should_be(folder, change, message):
    def compute(cell):
        return change(rows(cell)) if cell["training"] == 1 else rows(cell)

    with pytest.raises(ValueError, match=rf'{message}.*the cell {{.*"training": 1}}'):
        run(grid(folder, 3), compute, folder=folder, finite=["shift", "score"])
    run(grid(folder, 3), folder=folder, finite=["shift", "score"])
    assert computed(folder) == [0, 1, 1, 2]


def test_an_error_names_its_cell_and_is_the_same_error(folder):
    with pytest.raises(LookupError, match=r'^no weights\nin the cell {.*"training": 2}$'):
        run(grid(folder, 4), fails, folder=folder)
    assert len(kept(folder)) == 2


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "there are no cells"),
        ([{"a": [1, 2]}, {"a": 1}, {"a": (1, 2)}], {}, r'more than one {"a": \[1, 2\]}'),
        ([{"a": float("nan")}], {}, r"cannot write {'a': nan} as JSON"),
        ([{"a": np.int64(1)}], {}, r"cannot write {'a': np.int64\(1\)} as JSON .*int64"),
        ([{"a": 1}], {"description": {"weights": Path()}}, "cannot write {'weights'.* as JSON"),
        ([{"a": 1}], {"engine": "dask"}, "unknown engine 'dask'; choose one of: 'local', 'ray'"),
        ([{"a": 1}], {"workers": 2}, "workers=2 needs engine='ray'"),
        ([{"a": 1}], {"workers": 0, "engine": "ray"}, "workers must be a whole number of at least 1, got 0"),
        ([{"a": 1}], {"address": "cluster"}, "address must be 'host:port' or 'ray://host:port', got 'cluster'"),
        ([{"a": 1}], {"address": "http://head:6379"}, "address must be .* got 'http://head:6379'"),
        ([{"a": 1}], {"address": "head:many"}, "address must be .* got 'head:many'"),
    ],
)
def test_bad_input_is_named(folder, cells, options, message):
    with pytest.raises(ValueError, match=message):
        run(cells, folder=folder, **options)
    assert not folder.exists() or not kept(folder)


def test_ray_that_is_not_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'ray>=2\.30'"):
        run(grid(folder, 1), folder=folder, engine="ray")


def test_a_ray_of_the_reader_s_own_is_not_ended(folder, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("somebody else's Ray was ended"))
    with pytest.raises(RuntimeError, match=r"Ray runs in this process already.* call ray\.shutdown\(\) first"):
        run(grid(folder, 1), folder=folder, engine="ray")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_is(folder, form):
    address, begin = form.format(free_port()), time.monotonic()
    with pytest.raises(ConnectionError, match=rf"no Ray at {address} .*`ray start --head`, or leave the address out"):
        run(grid(folder, 1), folder=folder, address=address)
    assert time.monotonic() - begin < 10


class Silent(socketserver.BaseRequestHandler):
    """Accepts, and never says a word."""

    def handle(self):
        self.request.recv(1024)
        self.server.left.wait()


class Hasty(socketserver.BaseRequestHandler):
    """Accepts, and hangs up."""


@pytest.fixture(params=[Silent, Hasty, SimpleHTTPRequestHandler], ids=lambda handler: handler.__name__)
def no_ray(request):
    """The port of something that listens and is no Ray."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), request.param) as server:
        server.left = threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_address[1]
        server.left.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_something_else_listens(folder, form, no_ray):
    address, begin = form.format(no_ray), time.monotonic()
    with pytest.raises(ConnectionError, match=rf"no Ray at {address} .*`ray start --head`, or leave the address out"):
        run(grid(folder, 1), folder=folder, address=address)
    assert time.monotonic() - begin < 10
    assert computed(folder) == []


def test_an_encrypted_ray_is_not_greeted_in_the_clear(monkeypatch, no_ray):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    check_reachable(f"127.0.0.1:{no_ray}")


def test_one_gpu_for_each_worker(folder, monkeypatch):
    """Two GPUs in name only: what Ray gives to whom does not depend on what is in the machine."""
    import ray

    start = ray.init
    monkeypatch.setattr(ray, "init", lambda *args, **options: start(*args, **options | {"num_cpus": 4, "num_gpus": 2}))
    found = run(grid(folder, 6, seconds=1.0), gpu_rows, folder=folder, engine="ray")
    seen = found.groupby("training")[["gpus", "begin", "end"]].first()
    assert set(seen["gpus"]) == {"0", "1"}
    together = [(seen["begin"] < row.end) & (seen["end"] > row.begin) for row in seen.itertuples()]
    assert max(map(sum, together)) == 2
    for gpu, alone in seen.groupby("gpus"):
        assert (alone["begin"].sort_values()[1:].to_numpy() >= alone["end"].sort_values()[:-1].to_numpy()).all(), gpu


def test_two_workers_compute_the_same_rows_bit_for_bit(folder, tmp_path):
    import ray
    import torch

    found = run(grid(folder, 5), torch_rows, folder=folder, engine="ray", workers=2)
    assert not ray.is_initialized()
    assert len(computed(folder)) == 5
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = run(grid(tmp_path / "here", 5), torch_rows, folder=tmp_path / "here")
    finally:
        torch.set_num_threads(threads)
    assert_frame_equal(found, here, check_exact=True)
    assert set(found["threads"]) == {1}


def test_a_worker_that_is_killed_is_replaced(folder, tmp_path, cluster):
    left = Path(f"{folder}.log.pid")

    def killer():
        wait_for(left.exists)
        os.kill(int(left.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    found = run(grid(folder, 4), hangs_once, folder=folder, address=cluster)
    thread.join()
    assert_frame_equal(found, expected(grid(tmp_path / "other", 4)), check_exact=True)
    assert sorted(computed(folder)) == [0, 1, 2, 3]


def test_an_error_on_ray_is_the_same_error_and_not_tried_again(folder, cluster):
    import ray

    with pytest.raises(LookupError, match=r'^no weights\nin the cell {.*"training": 2}$') as raised:
        run(grid(folder, 3), fails, folder=folder, address=cluster, workers=1)
    assert type(raised.value) is LookupError
    assert len(kept(folder)) == 2
    assert computed(folder) == [0, 1]
    assert not ray.is_initialized()


def test_a_killed_driver_of_ray_loses_only_what_was_under_way(folder, tmp_path, cluster):
    process = start(folder, 8, 0.4, "ray")
    wait_for(lambda: len(kept(folder)) >= 2)
    kill(process)
    done = len(kept(folder))
    assert done < 8
    found = run(grid(folder, 8, seconds=0.4), folder=folder, address=cluster)
    assert_frame_equal(found, expected(grid(tmp_path / "other", 8)), check_exact=True)
    assert len(computed(folder)) <= 8 + 2  # two were under way
    assert len(kept(folder)) == 8
