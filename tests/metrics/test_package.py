import subprocess
import sys

from debias_utils import metrics


def test_metrics_load_numpy_and_nothing_heavier():
    code = "import debias_utils.metrics, sys; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("torch", "scipy", "sklearn", "pandas", "matplotlib"):
        assert heavy not in loaded
    own = {name.split(".")[1] for name in loaded if name.startswith("debias_utils.")}
    assert own == {"metrics", "arrays", "errors", "measured"}


def test_every_public_name_is_there_and_documented():
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__, name
