"""The book's sources, and one chapter's run: from its notebook to a finished page with its stamp."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from joblib import cpu_count
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from contents import pages
from debias_utils.assets import SCRATCH, cache_dir
from kernel import ThisPython, threads
from parameters import declared
from stamps import read_stamp, unproven, write_stamp

WORDS_A_MINUTE = 150  # with figures and formulas to look at
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
        return list(dict.fromkeys(known[name] for name in names)) or list(known.values())

    def stage(self) -> None:
        """Copy what the build needs beside the chapters; drop what is left of chapters no longer listed, and half files."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for name in STATIC:
            source, target = self.root / name, self.staging / name
            if source.is_dir():
                ignored = shutil.ignore_patterns(*SCRATCH)
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored, ignore_dangling_symlinks=True)
            elif source.exists():
                _copy(source, target)
        listed = pages(self.root)
        for page in listed:
            if page.suffix == ".md":
                _copy(self.root / page, self.staging / page)
        stamps = [page.with_suffix(".json") for page in listed if page.suffix == ".ipynb"]
        for folder in (self.staging, self.failed):
            for old in [path for kind in ("ipynb", "md", "json", "part") for path in folder.rglob(f"*.{kind}")]:
                kept = old.relative_to(folder)
                if kept not in (*listed, *stamps) and kept.parts[0] not in STATIC and not old.is_dir():
                    old.unlink()

    def declared_parameters(self, chapter: str) -> dict[str, str]:
        """What the chapter's cell tagged `parameters` assigns: {name: its default, as Python}.

        Raises:
            ValueError: the chapter cannot be read.
        """
        source = self.root / f"{chapter}.ipynb"
        try:
            return declared(nbformat.read(source, as_version=4))
        except OSError:
            raise
        except Exception as error:  # nbformat and Python's parser raise many kinds
            raise ValueError(f"{source.relative_to(self.root)} cannot be read as a notebook: {error}") from error

    def key(self, chapter: str, given: Mapping[str, Any], dependencies: str) -> str:
        """Hash of all that decides a chapter's page."""
        source = (self.root / f"{chapter}.ipynb").read_bytes()
        if b"prove.said(" in source:  # the page tells what was proven
            source += b"".join(path.read_bytes() for path in sorted((cache_dir() / "proofs").glob("*.json")))
        return hashlib.sha256(source + json.dumps(given, sort_keys=True).encode() + dependencies.encode()).hexdigest()

    def is_current(self, chapter: str, parameters: Mapping[str, Any], dependencies: str) -> bool:
        """Does the finished page lie there as a run of this very chapter wrote it?"""
        page = self.staging / f"{chapter}.ipynb"
        key = self.key(chapter, self._given(chapter, parameters), dependencies)
        return unproven(page) is None and read_stamp(page.with_suffix(".json"))["key"] == key

    def run(
        self,
        chapter: str,
        parameters: Mapping[str, Any],
        dependencies: str,
        *,
        tell: Callable[[str], Any] = lambda text: tqdm.write(text, sys.stderr),
        bar: Mapping[str, Any] | None = None,
    ) -> str:
        """Run one chapter unless its finished copy is current.

        Args:
            chapter: its path without suffix. parameters: values; those that it does not declare are left out.
            dependencies: see `dependencies_hash`. tell: takes the sentence that says why it failed.
            bar: how tqdm shows the progress over cells.

        Returns:
            "current", "ran" or "FAILED".
        """
        source, target = self.root / f"{chapter}.ipynb", self.staging / f"{chapter}.ipynb"
        failed = self.failed / f"{chapter}.ipynb"
        try:
            if self.is_current(chapter, parameters, dependencies):
                failed.unlink(missing_ok=True)  # left by a run that was cut off
                return "current"
            given = self._given(chapter, parameters)
            key = self.key(chapter, given, dependencies)
            for old in (target.with_suffix(".json"), target):  # a chapter that fails must not leave yesterday's page in the book
                old.unlink(missing_ok=True)
            for folder in (target.parent, failed.parent):
                folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            # straight into the folder of failures: a run that is cut off leaves its copy there, never in the book
            notebook = papermill.execute_notebook(
                _no_format(source), _no_format(failed), parameters=given, cwd=str(source.parent), kernel_name="python3",
                kernel_manager_class=ThisPython, progress_bar=dict(bar or {"leave": False, "desc": Path(chapter).name}),
            )  # fmt: skip
            seconds = round(time.perf_counter() - start, 1)
            finish(notebook, seconds)
            nbformat.write(notebook, failed)
            failed.replace(target)
            write_stamp(target, key=key, seconds=seconds)
            return "ran"
        except PapermillExecutionError as error:
            where = failed.relative_to(self.root)
            tell(f"{chapter}: cell {error.cell_index} raised {error.ename}: {error.evalue}; see {where}")
        except (RuntimeError, TimeoutError) as error:  # the kernel died or hung: the other chapters still run
            cells = nbformat.read(failed, as_version=4).cells if failed.exists() else []
            ran = [i for i, cell in enumerate(cells) if cell.get("execution_count")]
            tell(f"{chapter}: {type(error).__name__} after cell {max(ran, default=0)}: {error}")
        except OSError as error:
            tell(f"{chapter}: {cannot_use(error, self.root / '_build')}")
        except ValueError as error:
            tell(f"{chapter}: {error}")
        return "FAILED"

    def _given(self, chapter: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        declared = self.declared_parameters(chapter)
        return {name: value for name, value in parameters.items() if name in declared}


def cannot_use(error: OSError, folder: Path) -> str:
    """One sentence on a file or folder that cannot be read or written; errors of a full disk name no file."""
    if isinstance(error, shutil.Error):
        _, where, why = error.args[0][0]
    else:
        where, why = error.filename2 or error.filename or folder, error.strerror or str(error)
    built = str(where).startswith(str(folder))
    return f"cannot use {where}: {why}" + (
        f"; the book is built under {folder}, which must be writable and have room" if built else ""
    )


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
    cores = f"{threads()} of {cpu_count()} CPU cores"
    minutes = f"**Minutes.** Reading: about {reading}. Running: {seconds / 60:.1f}, measured on {cores}."
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
        cell.source = cell.source.replace("<!-- minutes -->", minutes)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; a folder in its place is an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    shutil.copy2(source, part)
    part.replace(target)


def _no_format(path: Path) -> str:
    """A path as papermill takes it: braces would name parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")
