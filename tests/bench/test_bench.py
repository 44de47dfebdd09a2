import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from debias_utils.bench import files
from debias_utils.bench.run import MEASURES, ORIGINAL, leaderboard, measured, run
from debias_utils.bench.task import Task
from debias_utils.debiasers import METHODS

D, N = 24, 400


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def world(seed=0, lean=0.4):
    """A task in which an axis tells two groups apart, and the queries lean along it by `lean`."""
    rng = np.random.default_rng(seed)
    axis, *jobs = np.linalg.qr(rng.standard_normal((D, 5)))[0].T  # at right angles
    jobs = np.array(jobs)
    names, classes = ("a", "b", "c", "d"), np.array(["one", "other"])
    way = np.array([1, -1, 1, -1])

    def people(strength):
        of, job = rng.integers(0, 2, N), rng.integers(0, 4, N)
        pictures = strength * jobs[job] + 0.5 * (2 * of - 1)[:, None] * axis + 0.15 * rng.standard_normal((N, D))
        return rows(pictures), classes[of], np.array(names)[job]

    fitted, plain, dressed = people(1.0), people(0.1), people(1.0)
    queries = rows(jobs + lean * way[:, None] * axis)
    fit = {
        "images": fitted[0],
        "groups": fitted[1],
        "targets": np.array([names.index(name) for name in fitted[2]]),
        "sets": [rows(job + 0.4 * np.array([[-1.0], [1.0]]) * axis) for job in jobs],
        "queries": queries,
        "group_queries": rows(queries[:, None] + 0.6 * np.array([[[-1.0], [1.0]]]) * axis),
    }
    return Task(
        fit, images=plain[0], groups=plain[1], queries=queries, names=names, group_queries=fit["group_queries"],
        asked=("one", "other"), targets=dressed[2], task_images=dressed[0], task_groups=dressed[1],
    )  # fmt: skip


def test_what_leans_is_seen_and_what_takes_it_out_is_better():
    task = world()
    before, after = (measured(task, method, k=50) for method in (ORIGINAL, "PCA subspace"))
    assert before["excess max skew"] > 0.4
    assert abs(after["excess max skew"]) < before["excess max skew"] / 2
    assert before["explicit"] > 0.9
    assert after["explicit"] < before["explicit"]  # a projection destroys what asks for it
    assert before["leakage"] > 0.95
    assert after["leakage"] < 0.8
    assert after["accuracy"] >= before["accuracy"] - 0.02


def test_nothing_that_leans_is_at_the_floor():
    assert abs(measured(world(lean=0.0), ORIGINAL, k=100, probe=False)["excess max skew"]) < 0.15


def test_what_the_data_do_not_allow_is_left_out_with_the_reason():
    task = world()
    few = Task({"sets": task.fit["sets"]}, images=task.images, groups=task.groups, queries=task.queries, names=task.names)
    assert "needs" in measured(few, "LEACE", k=20)["left out"]
    assert "images" in measured(few, "LEACE", k=20)["left out"]
    found = measured(few, "PCA subspace", k=20)
    assert found["left out"] == ""
    assert np.isnan(found["accuracy"])  # there is no task
    with pytest.raises(ValueError, match="unknown method 'oracle'"):
        measured(few, "oracle")


def test_a_task_survives_its_folder(tmp_path):
    task = world()
    again = Task.load(task.save(tmp_path / "task"))
    assert np.array_equal(again.images, task.images)
    assert all(np.array_equal(a, b) for a, b in zip(again.fit["sets"], task.fit["sets"], strict=True))
    assert (again.names, again.asked) == (task.names, task.asked)
    (tmp_path / "task" / "task.npz").write_bytes(b"cut")
    with pytest.raises(ValueError, match="whole"):
        Task.load(tmp_path / "task")


def test_rows_are_kept_and_the_leaderboard_has_intervals(tmp_path):
    tasks = {f"training {i}": world(seed=i) for i in range(3)}
    options = {"folder": tmp_path, "methods": ["PCA subspace"], "k": 50, "probe": False, "progress": False}
    found = run(tasks, **options)
    assert len(found) == 6
    assert run(tasks, **options).equals(found)  # read, and not computed: the seconds are the same
    board = leaderboard(found).set_index("method")
    assert list(board.index) == [ORIGINAL, "PCA subspace"]
    for name in ("max skew", "accuracy"):
        own = found[found["method"] == ORIGINAL][name]
        assert board.loc[ORIGINAL, name] == pytest.approx(own.mean())
        assert board.loc[ORIGINAL, f"{name} low"] < own.mean() < board.loc[ORIGINAL, f"{name} high"]


@pytest.mark.parametrize(("changed", "axis"), [("targets", 0), ("group_queries", 1), ("task_images", 0)])
def test_other_data_under_the_same_name_are_measured_anew(tmp_path, changed, axis):
    """In one process too: nothing that was read before is taken for them."""
    task, options = world(), {"folder": tmp_path, "methods": [], "k": 50, "probe": False, "progress": False}
    before = run({"data": task}, **options)
    other = dataclasses.replace(task, **{changed: np.flip(getattr(task, changed), axis=axis)})
    after = run({"data": other}, **options)
    assert after[["accuracy", "explicit"]].to_numpy().tolist() != before[["accuracy", "explicit"]].to_numpy().tolist()
    assert run({"data": task}, **options)[list(MEASURES)].equals(before[list(MEASURES)])


def own_files(folder):
    """A reader's folder: arrays, a CSV of labels and names."""
    task = world()
    folder.mkdir()
    np.save(folder / "images.npy", task.task_images)
    pd.DataFrame({"group": task.task_groups, "target": task.targets}).to_csv(folder / "labels.csv", index=False)
    pd.DataFrame(task.queries).to_csv(folder / "queries.csv", index=False)
    (folder / "queries.txt").write_text("\n".join(task.names))
    np.save(folder / "group_queries.npy", task.fit["group_queries"].reshape(-1, D))
    (folder / "group_queries.txt").write_text("one\nother\n")
    return folder


def test_a_readers_own_files(tmp_path):
    task = files.task(own_files(tmp_path / "own"))
    assert task.images.shape == (N // 2, D)
    assert len(task.fit["images"]) == N // 2
    assert task.group_queries.shape == (4, 2, D)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "queries.txt").unlink(), r"there is no .*queries\.txt"),
        (lambda f: (f / "images.npy").unlink(), r"need one of images\.npy"),
        (lambda f: (f / "queries.txt").write_text("a\nb"), "need a name for each query: 2 and 4"),
        (lambda f: (f / "labels.csv").write_text("gender\none"), "unknown column of labels.csv 'group'"),
        (lambda f: (f / "labels.csv").write_text("group\none"), r"labels\.csv has 1 rows for 400 images"),
        (lambda f: (f / "images.npy").write_bytes(b"none"), "is no table of numbers"),
        (lambda f: (f / "group_queries.txt").write_text("one"), "has 8 rows, and not 4 queries x 1 classes"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, said):
    folder = own_files(tmp_path / "own")
    change(folder)
    with pytest.raises(ValueError, match=said):
        files.task(folder)


def test_the_command_on_a_readers_files(tmp_path):
    command = [
        sys.executable,
        "-m",
        "debias_utils.bench",
        "--data",
        str(own_files(tmp_path / "own")),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, "--k", "20", "--methods", "PCA subspace", "full projection"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "left out: PCA subspace: needs sets" in done.stdout
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert table["method"].tolist() == [ORIGINAL, "full projection"]
    assert set(MEASURES) <= set(table.columns)
    assert (tmp_path / "out" / "leaderboard.html").read_text().startswith("<table")
    assert set(METHODS) >= {"PCA subspace", "full projection"}
