"""Run every chapter with papermill into a staging copy of the book, `_build/book`, some side by side.

A chapter is run again only if its notebook, the module, the parameters or the installed versions have changed, or its
finished page was altered; so an interrupted run goes on where it stopped. A chapter that fails names its cell and leaves
its executed copy in `_build/failed`; the others still run. Each has one thread, unless OMP_NUM_THREADS says otherwise:
its numbers are the same however many run at once.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from joblib import cpu_count

from book import Book, cannot_use
from debias_utils.assets import is_scratch
from debias_utils.errors import check_choice, check_whole
from kernel import threads
from parameters import of_chapter
from side_by_side import run_side_by_side
from stamps import read_stamp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 2.5e9  # bytes: more than any chapter takes
GUESS = 30.0  # seconds of a chapter that was never measured here: about the mean of all on one core, their rows at hand


def dependencies_hash(source: Path) -> str:
    """Hash of what every chapter depends on: the module with its data, and the versions of the installed packages.

    What counts is what the package consists of: Python files and the patterns of package data in `pyproject.toml`. What
    editors and shells leave among them does not, nor links that lead nowhere.
    """
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    patterns = ["*.py", *(pattern for group in data.values() for pattern in group)]
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in source.rglob(pattern)}):
        name = path.relative_to(source)
        if path.is_file() and not is_scratch(name):
            digest.update(f"{name.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    digest.update("\n".join(sorted(f"{d.name}=={d.version}" for d in distributions())).encode())
    return digest.hexdigest()


def default_workers() -> int:
    """As many as there are cores, and memory for."""
    return max(1, min(cpu_count(), int(psutil.virtual_memory().available / MEMORY)))


def plan(seconds: Mapping[str, float | None], *, workers: int) -> tuple[list[str], str]:
    """The order of the chapters, the longest first, and a sentence on how long they will take.

    Args:
        seconds: {chapter: as measured last time, or None}. workers: how many run at once.
    """
    known = [s for s in seconds.values() if s is not None]
    guess = sum(known) / len(known) if known else GUESS
    taken = {chapter: guess if s is None else s for chapter, s in seconds.items()}
    order = sorted(taken, key=lambda chapter: -taken[chapter])
    at_work = [0.0] * workers
    for chapter in order:
        at_work[at_work.index(min(at_work))] += taken[chapter]
    new = len(taken) - len(known)
    source = f"{new} of them were never measured here" if new else "as measured last time"
    minutes = max(at_work) / 60
    about = f"about {minutes:.0f} minutes" if minutes >= 1.5 else "about a minute" if minutes > 0.5 else "less than a minute"
    return order, f"{about} on {cpu_count()} cores, {workers} at a time ({source})"


def choose(book: Book, options: argparse.Namespace) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The chapters to run, and the parameters of each.

    Raises:
        ValueError: an unknown chapter, profile or parameter, one given twice or of a wrong type, a notebook that is none.
    """
    from debias_utils.profiles import PROFILES  # loads PyTorch

    texts: dict[str, str] = {}
    for name, text in [*options.parameter, *([("profile", options.profile)] if options.profile else [])]:
        if name in texts:
            raise ValueError(f"the parameter {name} is given twice: {texts[name]!r} and {text!r}")
        texts[name] = text
    texts.setdefault("profile", "mini")
    check_choice("profile", texts["profile"], PROFILES)
    check_whole("the number of workers", options.workers)
    chosen = book.select(options.chapters)
    defaults = {chapter: book.declared_parameters(chapter) for chapter in chosen}
    known = sorted(set().union(*defaults.values()))
    for name in texts:
        if name not in known and name != "profile":
            raise ValueError(f"no chapter declares the parameter {name!r}; declared: {', '.join(known)}")
    return chosen, {chapter: of_chapter(texts, defaults[chapter]) for chapter in chosen}


def run(book: Book, chosen: Sequence[str], given: Mapping[str, Mapping[str, Any]], *, workers: int) -> bool:
    """Run what is not current, and list all with their seconds; did all of them finish?"""
    book.stage()
    dependencies = dependencies_hash(book.root / "src")
    stamps = {chapter: book.staging / f"{chapter}.json" for chapter in chosen}
    stale = [chapter for chapter in chosen if not book.is_current(chapter, given[chapter], dependencies)]
    outcomes = dict.fromkeys(chosen, "current")
    if stale:
        workers = min(workers, len(stale))
        stale.sort(key=lambda chapter: -(book.root / f"{chapter}.ipynb").stat().st_size)  # unmeasured, the largest come first
        order, time = plan({chapter: read_stamp(stamps[chapter]).get("seconds") for chapter in stale}, workers=workers)
        print(f"{len(stale)} of {len(chosen)} chapters will run, with {threads()} thread each: {time}", flush=True)
        outcomes |= run_side_by_side(book.root, order, given, dependencies, workers=workers)
    for chapter, outcome in outcomes.items():
        seconds = read_stamp(stamps[chapter]).get("seconds")
        print(f"{outcome:>8} {' ' * 8 if seconds is None else f'{seconds:6.1f} s'}  {chapter}")
    return "FAILED" not in outcomes.values()


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command's options; ends with a sentence on what cannot be one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="names such as 'ranking'; default: all")
    parser.add_argument("--profile", help="the size of the book (default: mini)")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a value for all chapters that declare this name, written as in their cell of parameters: -p seed 1",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=default_workers(), metavar="N",
        help="chapters at a time; default: as many as there are cores and memory for, here %(default)s",
    )  # fmt: skip
    options = parser.parse_args(given)
    options.refuse = parser.error
    return options


def main(arguments_given: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the chapters; returns 0 if all of them finished."""
    options, book, build = arguments(arguments_given), Book(root), root / "_build"
    try:
        Path.home()
    except RuntimeError:
        options.refuse("this user has no home folder: set HOME for the kernels, and DEBIAS_UTILS_CACHE for a cache elsewhere")
    try:
        chosen, values = choose(book, options)
    except (ValueError, OSError) as error:
        options.refuse(str(error))
    try:
        build.mkdir(exist_ok=True)
        with FileLock(build / "run.lock", timeout=0):
            return int(not run(book, chosen, values, workers=options.workers))
    except Timeout:
        print(f"another run is at work in {build}: wait until it has finished, or stop it", file=sys.stderr)
    except OSError as error:
        print(cannot_use(error, build), file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; chapters that had finished stay, the next run goes on with the others", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
