"""Collect the wheels that `tools/gpu_check.py` needs on a machine with PyTorch and no network: ``python tools/gpu_wheels.py``.

Fetches what the check imports, in the versions of this environment and for the other machine's Python, into a folder that
git ignores; not what comes with PyTorch and torchvision (NumPy and Pillow do), nor CUDA. Copy the repository and that folder to
the machine; the check installs from it what is missing there, into a temporary folder. The sizes are printed; if all together
exceed the limit, the largest wheels are moved out of the way until the rest fits, and named: `--without` leaves out by choice
what the machine has already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
FOLDER, LIMIT = ROOT / "gpu-wheels", 64.0
TORCH = ("torch", "torchvision")
NEEDS = (
    "dicebear-core", "dicebear-styles", "diffusers", "filelock", "joblib", "numpy", "open_clip_torch", "pandas", "pillow",
    "platformdirs", "pytest", "resvg-py", "safetensors", "tqdm", "transformers",
)  # fmt: skip
GLIBC = range(5, 29)  # manylinux_2_N: a machine with glibc 2.28, of 2018, or later takes all of them


def needed(names: Iterable[str], *, python: str, without: Iterable[str] = ()) -> dict[str, str]:
    """All that some packages require on Linux: {name: the version that is installed here}, CUDA left out.

    Raises:
        PackageNotFoundError: something is required there and not installed here, so that its version is unknown.
    """
    there = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython", "extra": "",
        "platform_python_implementation": "CPython", "platform_system": "Linux", "sys_platform": "linux",
        "platform_machine": "x86_64", "os_name": "posix",
    }  # fmt: skip
    found: dict[str, str] = {}
    leave, todo = {*map(canonicalize_name, without)}, [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found or name in leave or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        found[name] = version(name)
        for line in requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(there):
                todo.append(canonicalize_name(requirement.name))
    return dict(sorted(found.items()))


def download(packages: dict[str, str], folder: Path, *, python: str) -> list[str]:
    """Fetch a wheel of each, without what it requires. Returns those for which there is none."""
    tags = [f"manylinux_2_{n}_x86_64" for n in reversed(GLIBC)] + [f"manylinux{n}_x86_64" for n in (2014, 2010, 1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", python, "--implementation", "cp", "--disable-pip-version-check"]
    command += [part for tag in tags for part in ("--platform", tag)]
    pins = [f"{name}=={number}" for name, number in packages.items()]
    if subprocess.run([*command, *pins], stderr=subprocess.DEVNULL).returncode == 0:
        return []
    return [pin for pin in pins if subprocess.run([*command, pin]).returncode]  # one by one, so that one fails alone


def fit(wheels: Sequence[Path], limit: float) -> list[Path]:
    """The largest wheels that must stay behind, for the others to have at most `limit` MiB in all."""
    by_size = sorted(wheels, key=lambda path: (-path.stat().st_size, path.name))
    left = []
    while by_size and sum(path.stat().st_size for path in by_size) > limit * 2**20:
        left.append(by_size.pop(0))
    return left


def main(arguments: list[str] | None = None) -> int:
    """Collect, and say what there is and what is missing; 1 if something is."""
    parser = argparse.ArgumentParser(prog="python tools/gpu_wheels.py", description=__doc__)
    parser.add_argument("--python", default="3.12", help="of the machine (default: 3.12)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: gpu-wheels/")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"MiB in all (default: {LIMIT:g})")
    parser.add_argument("--with", nargs="+", default=[], metavar="NAME", dest="more", help="packages to add, such as pyarrow")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="what the machine has, besides PyTorch's own")
    options = parser.parse_args(arguments)
    try:
        with_torch = needed(TORCH, python=options.python)
        wanted = needed([*NEEDS, *options.more], python=options.python, without=[*with_torch, *options.without])
    except PackageNotFoundError as error:
        sys.exit(f"{parser.prog}: {error.name} is required on the machine and not installed here; install it first")
    if options.folder.exists() and any(options.folder.iterdir()):  # two versions of one package would be a riddle there
        sys.exit(f"{parser.prog}: {options.folder} is not empty; delete it, or name another with --folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    missing = download(wanted, options.folder, python=options.python)
    wheels = list(options.folder.glob("*.whl"))
    left = fit(wheels, options.limit)
    for path in sorted(wheels, key=lambda path: -path.stat().st_size):
        print(f"{path.stat().st_size / 2**20:7.2f} MiB  {path.name}{'  left out: above the limit' if path in left else ''}")
    missing += [str(parse_wheel_filename(path.name)[0]) for path in left]
    for path in left:
        path.unlink()
    kept = sum(path.stat().st_size for path in wheels if path not in left) / 2**20
    print(f"{len(wheels) - len(left)} wheels, {kept:.1f} MiB of {options.limit:g}, for Python {options.python}: {options.folder}")
    print(f"expected with PyTorch there: {', '.join(with_torch)}")
    if missing:
        print(f"MISSING here, so the machine must have it: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
