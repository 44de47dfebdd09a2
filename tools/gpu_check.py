"""Check the book's code on a GPU, and measure it, in at most 8 minutes: ``python tools/gpu_check.py``.

For one NVIDIA card of at least 16 GB. The machine needs this repository, PyTorch with CUDA and torchvision; what else is missing
is installed from the wheels in gpu-wheels/, which `tools/gpu_wheels.py` collects, into a temporary folder. Nothing is fetched.
Four steps, each of which says what it found:

tests  tests/gpu, on the card.
cells  one cell of the table for each editor and method, on the card and on the CPU, both in single precision: rows that nothing
       was optimised for must agree to 1e-3; the differences of optimised rows are stated.
edits  the pictures of each editor and method, on the card and on the CPU: in single precision, and in that of the chapters
       (half for InstructPix2Pix on a card, TF32 where PyTorch uses it). The differences are stated.
parts  seconds and peak memory of the full-size networks in half precision, without weights, see `evaluate.full_size`.

All goes into one JSON, benchmarks/gpu/<card>-<date>.json, which the chapter on scale reads: commit it. When time runs out, what
is left is skipped, and the file says so. Ends with 1 if a step failed or was skipped, a test failed, or rows did not agree.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WHEELS, FOLDER = ROOT / "gpu-wheels", ROOT / "benchmarks" / "gpu"
BUDGET, LEAST = 465.0, 5.0  # seconds in all, short of 8 minutes by what starting and stopping may take; too few to begin a step
TOLERANCE = 1e-3  # of rows that nothing was optimised for, on another device, in single precision
RHO, JOB, SEED = 0.9, "nurse", 0
LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "diffusers", "transformers", "open_clip_torch")

Report = dict[str, Any]


class OutOfTimeError(BaseException):
    """Time is up. No Exception, so that nothing on the way takes it for a failure of its own."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` after so many seconds, whatever runs, unless it is inside one call of a library."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def install(wheels: Path, target: str) -> list[str]:
    """Install the wheels of packages that are missing here. Returns their names."""

    def missing(path: Path) -> bool:
        try:
            return not version(path.name.split("-")[0])
        except PackageNotFoundError:
            return True

    chosen = [str(path) for path in sorted(wheels.glob("*.whl")) if missing(path)]
    if chosen:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", target]
        if subprocess.run([*pip, *chosen]).returncode:
            here = ".".join(platform.python_version_tuple()[:2])
            sys.exit(f"the wheels in {wheels} do not suit this Python; collect them with tools/gpu_wheels.py --python {here}")
    return [Path(path).name.split("-")[0] for path in chosen]


def tests(found: Report, options: argparse.Namespace) -> None:
    """tests/gpu in a process of its own, without the settings for warnings: libraries differ there."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=default"]
    command += ["--tb=short", str(ROOT / "tests" / "gpu"), *(["-k", "noise or subspace"] if options.quick else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DEBIAS_UTILS_TEST_DEVICE": options.device}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = done.stdout.strip().splitlines() or ["pytest said nothing"]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", lines[-1])}
    found.update(counts=counts, summary=lines[-1], passed=done.returncode == 0)
    if done.returncode:
        print(done.stdout)
        found["output"] = done.stdout[-8000:]


@contextmanager
def single_precision(parts: Any) -> Iterator[None]:
    """The same arithmetic as on a CPU: no TF32, and the diffusion editor in float32, which a card has in half precision."""
    import torch

    from debias_utils import load_profile

    editor, switches = parts.editor(RHO), (torch.backends.cudnn, torch.backends.cuda.matmul)
    dtype, before = editor.dtype, [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    editor.float().load_state_dict(load_profile(parts.name, device="cpu").editor(RHO).state_dict())  # not rounded
    try:
        yield
    finally:
        editor.to(dtype)
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def cells(found: list[Report], options: argparse.Namespace) -> None:
    """The same cells on both devices: how far apart are their rows?"""
    from debias_utils import load_profile
    from debias_utils.evaluate import grid
    from debias_utils.evaluate.cells import NUMBERS, compute
    from debias_utils.evaluate.names import GRADIENT, ORACLE

    parts = load_profile(device=options.device)
    which = {"seeds": [SEED], "occupations": [JOB], "people": 1 if options.quick else 4}
    wanted = [cell for cell in grid.cells(parts, "table", **which) if cell["rho"] == RHO and cell["method"] != ORACLE]
    with single_precision(parts):
        for cell in wanted:
            optimised = cell["method"] == GRADIENT
            if optimised and options.quick:
                cell["options"]["steps"] = 1
            rows, took = [], []
            for device in ("cpu", options.device):
                begin = time.perf_counter()
                rows.append(compute(cell, profile=parts.name, base_seed=parts.seed, device=device))
                took.append(time.perf_counter() - begin)
            here, there = rows
            apart = (here[list(NUMBERS)] - there[list(NUMBERS)]).abs().max()
            largest = float(apart.max(skipna=False))
            labels = [name for name in here if name.endswith(("_before", "_after"))]
            line: Report = {name: cell[name] for name in ("editor", "method", "people", "occupations", "options")}
            line |= {"rows": len(here), "seconds": took[1], "seconds_cpu": took[0], "differences": apart.to_dict()}
            line |= {"largest": largest, "labels_changed": int((here[labels] != there[labels]).sum().sum())}
            line |= {"tolerance": None, "agree": None} if optimised else {"tolerance": TOLERANCE, "agree": largest <= TOLERANCE}
            found.append(line)
            verdict = "optimised: stated" if optimised else "agree" if line["agree"] else f"APART by more than {TOLERANCE:g}"
            print(f"  {cell['editor']}, {cell['method']}: rows differ by up to {largest:.1e}, {verdict}", flush=True)


def edits(found: list[Report], options: argparse.Namespace) -> None:
    """The same edits on both devices: how far apart are the pictures, in [0, 1]?"""
    from debias_utils import load_profile

    here, there = (load_profile(device=device) for device in ("cpu", options.device))
    reference = {(editor, method): (picture, took) for editor, method, picture, took in _pictures(here, options)}

    def compare(precision: str) -> None:
        for editor, method, pictures, took in _pictures(there, options):
            same, took_cpu = reference[editor, method]
            apart = (same - pictures).abs()
            line = {"editor": editor, "method": method, "precision": precision, "pictures": len(pictures)}
            line |= {"largest": float(apart.max()), "mean": float(apart.mean()), "seconds": took, "seconds_cpu": took_cpu}
            found.append(line)
            print(f"  {editor}, {method}, {precision}: pixels differ by up to {line['largest']:.1e}", flush=True)

    if not options.quick:
        with single_precision(there):
            compare("single")
    compare("as in the chapters")


def _pictures(parts: Any, options: argparse.Namespace) -> Iterator[tuple[str, str, Any, float]]:
    """(editor, method, pictures (n, 3, h, w) on the CPU, seconds) of some people in one occupation.

    Each is made once: what a card does at its first call only is in the first of an editor.
    """
    from debias_utils.evaluate import study as _study
    from debias_utils.evaluate.instruct_study import InstructStudy
    from debias_utils.evaluate.names import BEFORE, GRADIENT, INSTRUCT, ORTHOGONAL, STYLECLIP, TEXT

    people, steps = (1, 1) if options.quick else (4, 6)
    style = _study.StyleClipStudy(parts, rho=RHO, people=people, samples=64 if options.quick else 1000)
    instruct, at = InstructStudy(parts, rho=RHO, people=people), [style.jobs.index(JOB)]
    _ = style.features  # once for all methods: no time of the first

    def by_sentence(method: str) -> Any:
        space = style.subspace(*_study.PROTECTED)
        directions = style.directions(
            style.relevance(style.debiased(space) if method == TEXT else style.deltas), channels=_study.CHANNELS
        )
        if method == ORTHOGONAL:
            directions = style.orthogonal(directions, space)
        styles = style.apply(directions[at], alpha=_study.ALPHA)
        if method == GRADIENT:
            styles = style.gradient_based(styles, style.texts[at], steps=steps, progress=False).latent[None]
        return parts.draw(styles)[0]

    def by_instruction(method: str) -> Any:
        conditions = instruct.debiased(instruct.subspace(*_study.PROTECTED)) if method == TEXT else instruct.conditions
        conditions = conditions[at]
        if method == GRADIENT:
            conditions = instruct.gradient_based(conditions, people=people, jobs=[JOB], steps=steps, progress=False)[0]
        return instruct.draw(conditions, people=people, progress=False)[0]

    for editor, make, methods in (
        (STYLECLIP, by_sentence, (BEFORE, TEXT, GRADIENT, ORTHOGONAL)),
        (INSTRUCT, by_instruction, (BEFORE, TEXT, GRADIENT)),
    ):
        for method in methods:
            begin = time.perf_counter()
            pictures = make(method).cpu()  # a card has finished when they are there
            yield editor, method, pictures, time.perf_counter() - begin


def parts(found: list[Report], options: argparse.Namespace) -> None:
    """Seconds and memory of each network at full size."""
    import torch

    from debias_utils.evaluate import full_size, plan

    for part in ("CLIP",) if options.quick else plan.PARTS:
        try:
            measured = full_size.measure(options.device, only=(part,), progress=False).to_dict("records")
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(f"{part} does not fit: {str(error).splitlines()[0]}") from None
        finally:
            gc.collect()
        found += measured[bool(found) :]  # the matrix product once
        row = found[-1]
        peak = "" if math.isnan(row["peak_gb"]) else f", {row['peak_gb']:.2f} GB"
        print(f"  {part}: {row['forward']:.4f} s, with the gradient {row['gradient']:.4f} s{peak}", flush=True)


# the share of the time left that a step may take, and what holds what it finds
STEPS: dict[str, tuple[Callable[[Any, argparse.Namespace], None], float, type]] = {
    "tests": (tests, 0.3, dict), "cells": (cells, 0.4, list), "edits": (edits, 0.5, list), "parts": (parts, 1.0, list),
}  # fmt: skip


def run(name: str, report: Report, options: argparse.Namespace, left: float) -> None:
    """One step: what it found goes into the report as it is found, so that it stays when time runs out."""
    step, share, kind = STEPS[name]
    report[name], state, why, begin = kind(), "done", None, time.perf_counter()
    if left < LEAST:
        state, why = "skipped", f"{max(left, 0):.0f} s were left"
    else:
        print(f"{name}: at most {share * left:.0f} s", flush=True)
        try:
            with within(share * left):
                step(report[name], options)
        except OutOfTimeError:
            state, why = "out of time", f"stopped after {share * left:.0f} s"
        except Exception as error:
            state, why = "failed", f"{type(error).__name__}: {error}"
    report["steps"][name] = {"state": state, "why": why, "seconds": time.perf_counter() - begin}
    print(f"{name}: {state}{f' ({why})' if why else ''}, {report['steps'][name]['seconds']:.0f} s", flush=True)


def good(report: Report) -> bool:
    """Was every step done, did the tests pass, and did the rows agree?"""
    done = all(step["state"] == "done" for step in report["steps"].values())
    return done and report["tests"]["passed"] and all(cell["agree"] is not False for cell in report["cells"])


def about(options: argparse.Namespace, installed: list[str]) -> Report:
    """The machine, and what it runs."""
    import torch

    from debias_utils import assets
    from debias_utils.evaluate import full_size, provenance

    cuda = options.device.startswith("cuda")
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines() if cuda else []
    memory = torch.cuda.get_device_properties(options.device).total_memory / 1e9 if cuda else None
    return {
        "card": full_size.machine(options.device), "device": options.device, "memory_gb": memory,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "commit": options.commit or _commit(),
        "code": provenance.code_hash(), "weights": assets.weights_hash(), "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if cuda else None,
        "python": platform.python_version(), "libraries": {name: version(name) for name in LIBRARIES}, "installed": installed,
        "threads": torch.get_num_threads(), "quick": options.quick, "budget": options.budget,
    }  # fmt: skip


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _commit() -> str:
    commit = _said("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{' with changes' if changed else ''}" if commit else "unknown"


def _said(*command: str) -> str:
    """What a command prints; nothing if there is no such command, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the steps, write the JSON after each; 0 if all is well."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(
        prog="python tools/gpu_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="default: cuda; cpu compares the CPU with itself, to try the check")
    parser.add_argument("--quick", action="store_true", help="few tests, one person, one step, one precision, one network")
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds in all (default: {BUDGET:g})")
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="default: gpu-wheels/")
    parser.add_argument("--out", type=Path, help="folder of the JSON (default: benchmarks/gpu/; of a check on the CPU, none)")
    parser.add_argument("--commit", help="what is checked, where the repository's history is not there")
    options = parser.parse_args(arguments)
    if options.out is None and (options.quick or not options.device.startswith("cuda")):
        parser.error("a quick check, or one without a card, is no measurement to keep: say with --out where to put it")
    out = options.out or FOLDER
    with tempfile.TemporaryDirectory() as site:
        installed = install(options.wheels, site)
        sys.path[:] = [str(ROOT / "src"), *sys.path, site]  # what the machine has comes before the wheels
        if lacking := [name for name in ("torch", "torchvision", "debias_utils") if importlib.util.find_spec(name) is None]:
            sys.exit(f"{parser.prog}: no {' and no '.join(lacking)} here; the machine must have PyTorch and torchvision")
        import torch

        if options.device.startswith("cuda") and not torch.cuda.is_available():
            sys.exit(f"{parser.prog}: PyTorch {torch.__version__} sees no CUDA device here; --device cpu --quick tries the check")
        report: Report = {**about(options, installed), "steps": {}}
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{report['card']}-{report['date']}").strip("-")
        path = out / f"{name}.json"
        out.mkdir(parents=True, exist_ok=True)
        print(f"{report['card']}, PyTorch {torch.__version__}, {report['commit']}", flush=True)
        for step in STEPS:
            run(step, report, options, options.budget - (time.perf_counter() - begin))
            report["seconds"], report["good"] = time.perf_counter() - begin, len(report["steps"]) == len(STEPS) and good(report)
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(finite(report), indent=1, allow_nan=False) + "\n", "utf-8")
            temporary.replace(path)
    print(f"{'all is well' if report['good'] else 'NOT all is well'}: {path}, {report['seconds']:.0f} s", flush=True)
    return 0 if report["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
