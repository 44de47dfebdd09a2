"""Test the lower bounds of pyproject.toml: install the lowest versions that it allows, and run a few tests with them.

The package is built as a wheel and imported from there, so that this also tests what a wheel holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/test_import.py",
    "tests/test_metrics.py",
    "tests/test_packaged_editors.py",
    "tests/models/test_pix2pix.py::test_every_part_agrees_with_the_official_pipeline",
    "tests/models/test_stylegan2.py",
    "tests/edit/test_instruct.py::test_every_official_run_is_reproduced",
    "tests/evaluate/test_study.py::test_edits_show_more_of_the_occupation_than_the_originals",
    "tests/evaluate/test_instruct_study.py::test_edits_show_the_occupation_and_the_person",
)


def run(*command: str | Path, **options: str) -> None:
    """Run a command in the repository, without the repository on Python's path; stop if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([str(part) for part in command], cwd=ROOT, env={**environment, **options}, check=True)


def main() -> None:
    """Make the environment in a temporary folder (7 GB), install, test."""
    with tempfile.TemporaryDirectory(prefix="lowest-") as made:
        folder = Path(made)
        source, uv, python = folder / "source", folder / "uv" / "bin", folder / "lowest" / "bin" / "python"
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        venv.create(uv.parent, with_pip=True, symlinks=True)
        venv.create(folder / "lowest", symlinks=True)
        run(uv / "pip", "install", "--quiet", "uv")
        chosen = ("--resolution", "lowest-direct", "--python", python)
        run(uv / "uv", "pip", "install", "--quiet", *chosen, f"{source}[book,train,ray,dev]")
        run(python, "-c", "import debias_utils; print('lowest versions:', debias_utils.__file__)")
        run(python, "-m", "pytest", *TESTS)


if __name__ == "__main__":
    main()
