"""What a newcomer's first line costs, and loads."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_is_light():
    loaded = run("import debias_utils, sys; print(' '.join(sys.modules))").split()
    for heavy in ("torch", "pandas", "numpy", "open_clip", "matplotlib", "sklearn", "scipy", "diffusers", "transformers"):
        assert heavy not in loaded


def test_metrics_import_no_model_code():
    loaded = run("import debias_utils.metrics, sys; print(' '.join(sys.modules))").split()
    assert "numpy" in loaded
    assert not [
        name for name in loaded if name.startswith(("torch", "open_clip", "debias_utils.models", "debias_utils.toonville"))
    ]


def test_submodules_load_on_first_use():
    assert run("import debias_utils; print(debias_utils.metrics.able(1.0, 0.0))") == "1.0"


def test_every_submodule_loads_on_first_use():
    import debias_utils

    folder = Path(debias_utils.__file__).parent
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {name for name in there if not name.startswith("__")} <= {*debias_utils.SUBMODULES, "arrays", "measured", "tensors"}
    assert run("import debias_utils; print(debias_utils.evaluate.__name__)") == "debias_utils.evaluate"


def test_unknown_attribute():
    import debias_utils

    with pytest.raises(AttributeError, match="nonsense"):
        print(debias_utils.nonsense)
