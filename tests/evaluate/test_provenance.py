import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import debias_utils
from debias_utils.evaluate import provenance

PACKAGE = Path(debias_utils.__file__).parent
COMPUTE = """
import json, sys
from debias_utils.evaluate import cells
for cell in json.loads(sys.argv[1]):
    cells.compute(cell, profile="mini", base_seed=0, device="cpu")
own = [module for name, module in sys.modules.items() if name.startswith("debias_utils")]
print(json.dumps([module.__file__ for module in own if getattr(module, "__file__", None)]))
"""


@pytest.fixture
def copy(tmp_path):
    """The code of the package, which a test may change."""
    left_out = shutil.ignore_patterns("weights", "results", "__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "debias_utils", ignore=left_out))


def code(package):
    return provenance.code_hash.__wrapped__(package)


@pytest.mark.parametrize(
    "file", ["toonville/train_clip.py", "toonville/train_pix2pix.py", "models/anything.py", "toonville/props/new.svg", "new.json"]
)
def test_what_is_not_listed_counts(copy, file):
    before = code(copy)
    with (copy / file).open("a") as changed:
        changed.write("\n")
    assert code(copy) != before


@pytest.mark.parametrize(
    "file",
    [
        ".#cells.py", "evaluate/cells.py~", "evaluate/.cells.py.swp", "#cells.py#", ".DS_Store", "__pycache__/cells.pyc",
        ".ipynb_checkpoints/cells-checkpoint.py", "evaluate/plan.py", "show/page.py",
    ],
)  # fmt: skip
def test_files_of_editors_and_code_that_computes_no_row_do_not_count(copy, file):
    before = code(copy)
    path = copy / file
    path.parent.mkdir(exist_ok=True)
    if path.name.startswith(".#"):
        path.symlink_to("somebody@here.4711")  # as Emacs locks a file: it leads nowhere
    else:
        with path.open("a") as changed:
            changed.write("\n")
    assert code(copy) == before


def test_no_code_that_is_left_out_is_loaded_where_rows_are_computed():
    """What the hash leaves out cannot change a row: a process that computes some of each kind never loads it."""
    from debias_utils import load_profile
    from debias_utils.evaluate import grid

    wanted = {(grid.STYLECLIP, method) for method in (grid.GRADIENT, grid.ORTHOGONAL, grid.ORACLE)} | {(grid.INSTRUCT, grid.TEXT)}
    some = [
        {**cell, "occupations": ["nurse"], "who": [0]}
        for cell in grid.cells(load_profile("mini", device="cpu"), "table", seeds=[0], occupations=["nurse"])
        if (cell["editor"], cell["method"]) in wanted and cell["rho"] == grid.BIASED
    ]
    assert len(some) == len(wanted)
    done = subprocess.run([sys.executable, "-c", COMPUTE, json.dumps(some)], capture_output=True, text=True, check=True)
    loaded = [Path(file).relative_to(PACKAGE).as_posix() for file in json.loads(done.stdout.splitlines()[-1])]
    assert "evaluate/study.py" in loaded
    assert not [file for file in loaded if file.startswith(provenance.NO_ROW)]
