"""Run every chapter with papermill into a staging copy of the book, `_build/book`.

A chapter is run again only if its notebook, the module, the parameters or the installed versions have changed; so an
interrupted run goes on where it stopped. A chapter that fails names its cell and leaves its executed copy in
`_build/failed`; the others still run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from joblib import cpu_count
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from contents import pages
from debias_utils.errors import check_choice
from debias_utils.profiles import PROFILES

WORDS_A_MINUTE = 150  # with figures and formulas to look at
ROOT = Path(__file__).resolve().parents[1]
STATIC = ("_config.yml", "_toc.yml", "references.bib", "_static", "_ext")


class Book:
    """The book's sources under `root`, and what is built from them under `root/_build`."""

    def __init__(self, root: Path):
        self.root, self.staging, self.failed = root, root / "_build" / "book", root / "_build" / "failed"

    def select(self, names: list[str]) -> list[str]:
        """Notebooks of these names without suffix (all for none); raises ValueError on a name that is no chapter."""
        known = {page.stem: page.with_suffix("").as_posix() for page in pages(self.root) if page.suffix == ".ipynb"}
        for name in names:
            if name not in known:
                raise ValueError(f"unknown chapter {name!r}; choose from: {', '.join(known)}")
        return [known[name] for name in names] or list(known.values())

    def stage(self) -> None:
        """Copy what the build needs beside the chapters; drop chapters that left the table of contents."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for name in STATIC:
            source, target = self.root / name, self.staging / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy2(source, target)
        listed = pages(self.root)
        for page in listed:
            if page.suffix == ".md":
                (self.staging / page).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.root / page, self.staging / page)
        for old in [*self.staging.rglob("*.ipynb"), *self.staging.rglob("*.md")]:
            if old.relative_to(self.staging) not in listed:
                old.unlink()

    def declared_parameters(self, chapter: str) -> set[str]:
        """Names of the parameters in the chapter's cell tagged `parameters`."""
        return set(papermill.inspect_notebook(str(self.root / f"{chapter}.ipynb")))

    def run(self, chapter: str, parameters: dict[str, Any], dependencies: str) -> str:
        """Run one chapter unless its finished copy is current; returns "current", "ran" or "FAILED"."""
        source, target = self.root / f"{chapter}.ipynb", self.staging / f"{chapter}.ipynb"
        stamp, failed = target.with_suffix(".json"), self.failed / f"{chapter}.ipynb"
        given = {name: value for name, value in parameters.items() if name in self.declared_parameters(chapter)}
        key = hashlib.sha256(source.read_bytes() + json.dumps(given, sort_keys=True).encode() + dependencies.encode()).hexdigest()
        if target.exists() and read_stamp(stamp).get("key") == key:
            return "current"
        for old in (stamp, target):  # a chapter that fails must not leave yesterday's page in the book
            old.unlink(missing_ok=True)
        for folder in (target.parent, failed.parent):
            folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:  # straight into the folder of failures: a run that is cut off leaves its copy there, never in the book
            papermill.execute_notebook(
                str(source), str(failed), parameters=given, cwd=str(source.parent), kernel_name="python3",
                progress_bar={"leave": False, "desc": Path(chapter).name},
            )  # fmt: skip
        except PapermillExecutionError as error:
            where = failed.relative_to(self.root)
            tqdm.write(f"{chapter}: cell {error.cell_index} raised {error.ename}: {error.evalue}; see {where}", sys.stderr)
            return "FAILED"
        except (RuntimeError, TimeoutError) as error:  # the kernel died or hung: the other chapters still run
            cells = nbformat.read(failed, as_version=4).cells if failed.exists() else []
            ran = [i for i, cell in enumerate(cells) if cell.get("execution_count")]
            tqdm.write(f"{chapter}: {type(error).__name__} after cell {max(ran, default=0)}: {error}", sys.stderr)
            return "FAILED"
        seconds = round(time.perf_counter() - start, 1)
        notebook = nbformat.read(failed, as_version=4)
        finish(notebook, seconds)
        nbformat.write(notebook, failed)
        failed.replace(target)
        written = stamp.with_suffix(".part")
        written.write_text(json.dumps({"key": key, "seconds": seconds}), "utf-8")
        written.replace(stamp)
        return "ran"


def read_stamp(stamp: Path) -> dict[str, Any]:
    """What a finished chapter noted; empty if there is no whole note."""
    try:
        return json.loads(stamp.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def finish(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Hide the cell that papermill added, and put the measured minutes where the chapter asks for them."""
    texts = [
        cell.source
        for cell in notebook.cells
        if not {"remove-cell", "hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))
    ]
    texts += [output.get("data", {}).get("text/markdown", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    words = sum(len(text.split()) for text in texts)
    reading = max(1, round(words / WORDS_A_MINUTE))
    minutes = f"**Minutes.** Reading: about {reading}. Running: {seconds / 60:.1f}, measured on {cpu_count()} CPU cores."
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
        cell.source = cell.source.replace("<!-- minutes -->", minutes)


def dependencies_hash(source: Path) -> str:
    """Hash of what every chapter depends on: the module with its data, and the versions of the installed packages."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        if path.is_file() and not {"__pycache__"} & set(path.parts) and not path.parent.name.endswith(".egg-info"):
            digest.update(path.relative_to(source).as_posix().encode() + path.read_bytes())
    digest.update("\n".join(sorted(f"{d.name}=={d.version}" for d in distributions())).encode())
    return digest.hexdigest()


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the chapters; returns 0 if all of them finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="names such as 'ranking'; default: all")
    parser.add_argument("--profile", default="mini", help="the size of the book (default: mini)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args(arguments)
    book = Book(root)
    try:
        check_choice("profile", options.profile, PROFILES)
        chosen = book.select(options.chapters)
    except ValueError as error:
        parser.error(str(error))
    parameters: dict[str, Any] = {name: yaml.safe_load(value) for name, value in options.parameter}
    known = set().union(*(book.declared_parameters(chapter) for chapter in chosen))
    for name in parameters:
        if name not in known:
            parser.error(f"no chapter declares the parameter {name!r}; declared: {', '.join(sorted(known))}")
    parameters = {"profile": options.profile, **parameters}
    book.stage()
    dependencies = dependencies_hash(root / "src")
    outcomes = {}
    with tqdm(chosen, desc="chapters", unit="chapter") as bar:
        for chapter in bar:
            bar.set_postfix_str(Path(chapter).name)
            outcomes[chapter] = book.run(chapter, parameters, dependencies)
    for chapter, outcome in outcomes.items():
        seconds = read_stamp(book.staging / f"{chapter}.json").get("seconds")
        print(f"{outcome:>8} {' ' * 8 if seconds is None else f'{seconds:6.1f} s'}  {chapter}")
    return int("FAILED" in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
