import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "docs" / "bug-log.md").read_text("utf-8").splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("line", LINES)
def test_every_fault_has_a_test_that_is_there(line):
    *_, guards, _ = line.split(" |")
    found = re.findall(r"((?:tests|tools)/[\w/]+\.py)?(?:::(\w+))?", guards)
    named = [(file, test) for file, test in found if file or test]
    path = ""
    for file, test in named:
        path = file or path
        text = (ROOT / path).read_text("utf-8")
        assert not test or re.search(rf"def {test}\b", text), f"{path}::{test}"
    assert path or "tests/fixtures" in guards, line
