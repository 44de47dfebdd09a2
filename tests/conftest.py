from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Numbers made by official implementations; present beside the repository on the developers' machines only."""
    folder = ROOT.parent / "shared" / "fixtures"
    if not folder.is_dir():
        pytest.skip("no ../shared/fixtures here")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("DEBIAS_UTILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def clip():
    from debias_utils.models.clip import Clip

    return Clip.load("toonville-rn-rho0.9-seed0")


@pytest.fixture(scope="session")
def vit():
    from debias_utils.models.clip import Clip

    return Clip.load("toonville-vit-rho0.9-seed0")


@pytest.fixture(scope="session")
def world():
    """56 balanced people with their pictures (n, 3, 64, 64) in [0, 1]."""
    from debias_utils import toonville

    people = toonville.add_stereotype(toonville.balanced(1, seed=5)).head(56)
    return people, toonville.to_tensor(toonville.render(people))
