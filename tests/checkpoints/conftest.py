import pytest
from misbehaving import Server


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("OFFLINE", "MIRRORS", "LOCAL", "ACCEPT"):
        monkeypatch.delenv(f"DEBIAS_UTILS_{name}", raising=False)
    for name in ("HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
