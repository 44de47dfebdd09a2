"""Chapters side by side: a process for each, so that one that fails, or is killed, ends none of the others.

A process gets its order on standard input, which stays open: when it closes, whoever gave the order is gone, and the process
ends with its kernel. So nothing is left running, however the runner ends (Ctrl-C, a signal, `kill -9`).
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from tqdm import tqdm

from book import Book


@dataclass
class Running:
    """A chapter at work: its process, what that says on its error stream, its bar and the bar's place."""

    chapter: str
    process: subprocess.Popen
    errors: IO[bytes]
    bar: tqdm
    place: int
    outcome: str = "FAILED"


def run_side_by_side(
    root: Path, chapters: Sequence[str], given: Mapping[str, Mapping[str, Any]], dependencies: str, *, workers: int
) -> dict[str, str]:
    """Run chapters, `workers` at a time in the order given; bars on a terminal, lines elsewhere.

    Args:
        root: of the book. chapters: paths without suffix. given: {chapter: its parameters}.
        dependencies: see `dependencies_hash`.

    Returns:
        {chapter: "ran", "current" or "FAILED"}; each failure has been said on standard error.
    """
    waiting, outcomes, running = list(chapters), {}, dict[int, Running]()
    terminal = sys.stderr.isatty()
    say = (lambda text: tqdm.write(text, sys.stderr)) if terminal else (lambda text: print(text, file=sys.stderr, flush=True))
    total = tqdm(total=len(chapters), desc="chapters", unit="chapter", position=0, disable=not terminal)
    with selectors.DefaultSelector() as ready, total:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    one = _start(root, waiting.pop(0), given, dependencies, {r.place for r in running.values()}, terminal)
                    running[one.process.pid] = one
                    ready.register(one.process.stdout, selectors.EVENT_READ, one)
                    if not terminal:
                        say(f"{one.chapter}: started ({len(chapters) - len(waiting)} of {len(chapters)})")
                for event, _ in ready.select(timeout=1):
                    one = event.data
                    if line := event.fileobj.readline():
                        _hear(one, line, say)
                        continue
                    ready.unregister(event.fileobj)
                    outcomes[one.chapter] = _end(running.pop(one.process.pid), say)
                    total.update()
                    if not terminal:
                        say(f"{one.chapter}: {outcomes[one.chapter]} ({len(outcomes)} of {len(chapters)} are done)")
                for bar in (total, *(one.bar for one in running.values())):
                    bar.refresh()
        finally:
            for one in running.values():  # stopped before the end
                one.process.stdin.close()
            for one in running.values():
                one.process.wait()
                one.bar.close()
    return outcomes


def _start(
    root: Path, chapter: str, given: Mapping[str, Mapping[str, Any]], dependencies: str, taken: set[int], terminal: bool
) -> Running:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the chapter ends
    process = subprocess.Popen(
        [sys.executable, __file__], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        start_new_session=True,  # Ctrl-C is for the runner, which then ends them all
    )  # fmt: skip
    order = {"root": str(root), "chapter": chapter, "parameters": given[chapter], "dependencies": dependencies}
    process.stdin.write(json.dumps(order).encode() + b"\n")
    place = next(i for i in range(1, len(taken) + 2) if i not in taken)
    bar = tqdm(total=0, desc=Path(chapter).name, unit="cell", position=place, leave=False, disable=not terminal)
    return Running(chapter, process, errors, bar, place)


def _hear(one: Running, line: bytes, say: Callable[[str], Any]) -> None:
    """Take in what a chapter's process says: where it is, why it failed, how it ended."""
    report = json.loads(line) if line.strip() else {}
    if "total" in report:
        one.bar.total, one.bar.n = report["total"], report["cells"]
    if "message" in report:
        say(report["message"])
    one.outcome = report.get("outcome", one.outcome)


def _end(one: Running, say: Callable[[str], Any]) -> str:
    code = one.process.wait()
    one.process.stdin.close()
    one.bar.close()
    if code < 0:
        say(f"{one.chapter}: its process was killed by signal {-code}, perhaps for want of memory")
    elif code > 0:
        one.errors.seek(0)
        say(f"{one.chapter}: its process ended with {code}: {one.errors.read().decode(errors='replace').strip()[-500:]}")
    one.errors.close()
    return one.outcome if code == 0 else "FAILED"


def _end_with_the_runner() -> None:
    """Wait until standard input closes, then end the kernel and this process."""
    sys.stdin.read()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def main() -> None:
    """Run the chapter that the line on standard input orders; say on standard output, in lines of JSON, how it goes."""
    order = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the kernel prints past its notebook must not get among the answers
    threading.Thread(target=_end_with_the_runner, daemon=True).start()

    def say(**report: Any) -> None:
        answers.write(json.dumps(report) + "\n")

    say(outcome=Book(Path(order["root"])).run(
        order["chapter"], order["parameters"], order["dependencies"], tell=lambda text: say(message=text),
        # papermill's bar, written as JSON: the runner draws it
        bar={"file": answers, "bar_format": '{{"cells": {n}, "total": {total}}}\n', "mininterval": 0},
    ))  # fmt: skip


if __name__ == "__main__":
    main()
