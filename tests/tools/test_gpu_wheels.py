from importlib.metadata import PackageNotFoundError, version

import pytest

import gpu_wheels


def test_what_is_needed_is_found_in_this_environment():
    found = gpu_wheels.needed(["open_clip_torch"], python="3.12", without=["torch", "torchvision"])
    assert {"open-clip-torch", "timm", "ftfy", "regex"} <= set(found)
    assert found["timm"] == version("timm")
    assert not {"torch", "torchvision"} & set(found)
    with_torch = gpu_wheels.needed(gpu_wheels.TORCH, python="3.12")
    assert {"torch", "torchvision", "numpy", "pillow"} <= set(with_torch)
    assert not [name for name in with_torch if name.startswith(("nvidia", "triton", "cuda"))]
    with pytest.raises(PackageNotFoundError):
        gpu_wheels.needed(["no-such-package"], python="3.12")


def test_all_that_the_check_imports_is_listed():
    """Beside what comes with PyTorch; Windows and tests of packages are left out."""
    with_torch = gpu_wheels.needed(gpu_wheels.TORCH, python="3.12")
    found = gpu_wheels.needed(gpu_wheels.NEEDS, python="3.12", without=with_torch)
    assert {"dicebear-core", "resvg-py", "pandas", "tokenizers", "huggingface-hub", "pytest"} <= set(found)
    assert not {"colorama", "scipy", "scikit-learn", "pyarrow", "matplotlib"} & set(found)


def wheels_of(sizes, folder):
    folder.mkdir(exist_ok=True)
    for name, mib in sizes.items():
        (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(b"0" * int(mib * 2**20))


def test_the_largest_are_left_out(tmp_path):
    wheels_of({"a": 3, "b": 2, "c": 1}, tmp_path / "w")
    paths = list((tmp_path / "w").iterdir())
    assert gpu_wheels.fit(paths, 6) == []
    assert [path.name[0] for path in gpu_wheels.fit(paths, 5.9)] == ["a"]
    assert [path.name[0] for path in gpu_wheels.fit(paths, 1)] == ["a", "b"]


def test_it_says_what_there_is_and_what_is_missing(tmp_path, monkeypatch, capsys):
    asked = {}

    def download(packages, folder, *, python):
        asked.update(packages, python=python)
        wheels_of({"diffusers": 2, "pandas": 1}, folder)
        return ["timm==1"]

    folder = tmp_path / "wheels"
    wheels_of({"mine": 1}, tmp_path / "own")
    with pytest.raises(SystemExit, match="own is not empty; delete it, or name another with --folder"):
        gpu_wheels.main(["--folder", str(tmp_path / "own")])
    assert len(list((tmp_path / "own").iterdir())) == 1
    monkeypatch.setattr(gpu_wheels, "download", download)
    command = ["--python", "3.11", "--folder", str(folder), "--limit", "2.5", "--without", "tqdm", "--with", "pyarrow"]
    assert gpu_wheels.main(command) == 1
    assert asked["python"] == "3.11"
    assert "pyarrow" in asked
    assert not {"tqdm", "torch", "numpy"} & set(asked)
    said = capsys.readouterr().out
    assert "MISSING here, so the machine must have it: timm==1, diffusers" in said
    assert "1 wheels, 1.0 MiB of 2.5, for Python 3.11" in said
    assert [path.name for path in folder.iterdir()] == ["pandas-1.0-py3-none-any.whl"]
    assert gpu_wheels.main(["--folder", str(tmp_path / "all"), "--limit", "9"]) == 1  # timm is still missing
    monkeypatch.setattr(gpu_wheels, "download", lambda packages, folder, *, python: wheels_of({"pandas": 1}, folder) or [])
    assert gpu_wheels.main(["--folder", str(tmp_path / "again")]) == 0


def test_a_package_that_is_not_installed_here(tmp_path):
    with pytest.raises(SystemExit, match="no-such-package is required on the machine and not installed here"):
        gpu_wheels.main(["--folder", str(tmp_path), "--with", "no-such-package"])
