"""The check itself, on the CPU: every step, and what happens when one fails or time runs out."""

import json
import subprocess
import sys
import time
import zipfile

import pandas as pd
import pytest

import gpu_check
from debias_utils.evaluate import cells, full_size
from debias_utils.evaluate.names import GRADIENT

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries; a card's check runs with other versions


@pytest.fixture(autouse=True)
def _same_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def written(folder):
    (path,) = folder.iterdir()
    return json.loads(path.read_text("utf-8")), path


def test_every_step_on_the_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(full_size, "SIDE", 256)
    assert (
        gpu_check.main(["--device", "cpu", "--quick", "--budget", "2000", "--out", str(tmp_path / "out"), "--commit", "abc"]) == 0
    )
    report, path = written(tmp_path / "out")
    assert path.name.endswith(f"-{report['date']}.json")
    assert (report["good"], report["commit"], report["quick"]) == (True, "abc", True)
    assert {name: step["state"] for name, step in report["steps"].items()} == dict.fromkeys(gpu_check.STEPS, "done")
    assert report["seconds"] >= sum(step["seconds"] for step in report["steps"].values())
    assert report["tests"]["counts"]["passed"] >= 2
    asked = {("StyleCLIP", m) for m in ("Before", "Text-based", GRADIENT, "Orthogonal")}
    asked |= {("InstructPix2Pix", m) for m in ("Before", "Text-based", GRADIENT)}
    for step in ("cells", "edits"):
        assert {(line["editor"], line["method"]) for line in report[step]} == asked
        assert all(line["largest"] == 0 for line in report[step])  # the CPU beside itself
    assert all(line["agree"] is (None if line["method"] == GRADIENT else True) for line in report["cells"])
    assert [part["part"] for part in report["parts"]] == [full_size.PRODUCT, "CLIP"]
    assert report["parts"][1]["peak_gb"] is None  # no card
    assert "all is well" in capsys.readouterr().out
    with pytest.raises(ValueError, match="its device is 'cpu'"):  # no measurement of a card
        full_size.gpu_measurements(tmp_path / "out")


def without_steps(monkeypatch, **steps):
    shares = {"tests": dict, "cells": list, "edits": list, "parts": list}

    def nothing(found, options):
        if isinstance(found, dict):
            found["passed"] = True

    monkeypatch.setattr(gpu_check, "STEPS", {name: (steps.get(name, nothing), 1.0, kind) for name, kind in shares.items()})


def test_rows_that_are_apart_are_found(monkeypatch):
    calls, compute = [], cells.compute

    def shifted(cell, **options):
        calls.append(cell)
        rows = pd.DataFrame({name: [0.5] for name in cells.NUMBERS}).assign(gender_before="a", gender_after="a")
        return rows.assign(age_shift=0.502, gender_after="b") if len(calls) % 2 == 0 else rows

    assert compute is not shifted
    monkeypatch.setattr(cells, "compute", shifted)
    found = []
    gpu_check.cells(found, gpu_check.argparse.Namespace(device="cpu", quick=True))
    assert {line["agree"] for line in found if line["method"] != GRADIENT} == {False}
    assert {line["agree"] for line in found if line["method"] == GRADIENT} == {None}
    for line in found:
        assert line["largest"] == line["differences"]["age_shift"] == pytest.approx(0.002)
        assert line["labels_changed"] == 1
    steps = {name: {"state": "done"} for name in gpu_check.STEPS}
    assert not gpu_check.good({"steps": steps, "tests": {"passed": True}, "cells": found})
    assert gpu_check.good({"steps": steps, "tests": {"passed": True}, "cells": []})
    assert not gpu_check.good({"steps": steps, "tests": {"passed": False}, "cells": []})


def test_what_fails_is_said_and_the_rest_goes_on(monkeypatch, tmp_path):
    def broken(found, options):
        found.append({"editor": "StyleCLIP", "agree": True, "largest": float("nan")})
        raise RuntimeError("CUDA error: no kernel image")

    without_steps(monkeypatch, cells=broken)
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    report, _ = written(tmp_path)
    assert report["steps"]["cells"]["state"] == "failed"
    assert report["steps"]["cells"]["why"] == "RuntimeError: CUDA error: no kernel image"
    assert report["cells"] == [{"editor": "StyleCLIP", "agree": True, "largest": None}]  # what was found before
    assert report["steps"]["edits"]["state"] == "done"
    assert report["good"] is False


def test_time_runs_out(monkeypatch, tmp_path):
    def slow(found, options):
        found.append("one")
        try:
            time.sleep(60)
        except Exception:  # a library that takes everything for its own failure
            pytest.fail("out of time is no Exception")

    without_steps(monkeypatch, cells=slow)
    monkeypatch.setattr(gpu_check, "LEAST", 0.5)
    begin = time.perf_counter()
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path), "--budget", "2"]) == 1
    assert time.perf_counter() - begin < 20
    report, _ = written(tmp_path)
    assert report["cells"] == ["one"]
    assert [report["steps"][name]["state"] for name in gpu_check.STEPS] == ["done", "out of time", "skipped", "skipped"]
    assert "left" in report["steps"]["parts"]["why"]


def test_failed_tests_are_shown(monkeypatch, tmp_path, capsys):
    def run(command, **options):
        assert options["env"]["DEBIAS_UTILS_TEST_DEVICE"] == "cpu"
        return subprocess.CompletedProcess(command, 1, stdout="E  boom\n1 failed, 3 passed in 2.00s\n")

    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    found = {}
    gpu_check.tests(found, gpu_check.argparse.Namespace(device="cpu", quick=True))
    assert (found["passed"], found["counts"]) == (False, {"failed": 1, "passed": 3})
    assert "boom" in found["output"]
    assert "boom" in capsys.readouterr().out


def test_wheels_of_what_is_missing_are_installed(tmp_path):
    for name in ("only_on_the_card", "numpy"):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "one = 1\n")
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    site = tmp_path / "site"
    assert gpu_check.install(tmp_path, str(site)) == ["only_on_the_card"]
    assert (site / "only_on_the_card.py").exists()
    assert not (site / "numpy.py").exists()


def test_wheels_of_another_python(tmp_path):
    (tmp_path / "only_on_the_card-1.0-cp35-cp35m-manylinux1_x86_64.whl").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"do not suit this Python; collect them with tools/gpu_wheels.py --python 3\.\d+"):
        gpu_check.install(tmp_path, str(tmp_path / "site"))


def test_bad_calls(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--device", "cpu"])
    assert "is no measurement to keep: say with --out where to put it" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="sees no CUDA device here"):
        gpu_check.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
