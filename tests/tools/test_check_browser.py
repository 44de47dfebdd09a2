"""The browser check, with a real Chromium where one is found."""

import pytest

import check_browser
from debias_utils import show

PAGE = "<!doctype html><title>t</title><main>{body}<p>" + "Words to read. " * 12 + "</p></main>"


@pytest.fixture
def site(tmp_path, monkeypatch):
    if check_browser.chromium() is None:
        pytest.skip("no Chromium here")
    (tmp_path / "site").mkdir()

    def check(body):
        (tmp_path / "site" / "page.html").write_text(PAGE.format(body=body))
        return check_browser.main(str(tmp_path / "site"), str(tmp_path / "shots"))

    return check


def test_a_slider_moves_and_formulas_are_laid_out(site, monkeypatch, capsys, tmp_path):
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda item: outputs.append(item.data))
    import numpy as np

    frame = show.to_png(np.zeros((9, 9, 3), np.uint8))
    show.slider([frame, frame], ["0", "1"], alt=["the first of two frames", "the second of two frames"], name="rho")
    assert site(outputs[0] + "<math><mfrac><mi>a</mi><mn>2</mn></mfrac></math>") == 0
    assert "all is drawn" in capsys.readouterr().out
    assert len(list((tmp_path / "shots").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<img alt="gone for good now" src="nothing.png">', "picture not drawn: gone for good now"),
        ("<div style='width:3000px'>wide</div>", "pixels wider than a narrow screen"),
        ('<p class="error">Traceback</p>', "1 error boxes"),
        ("<script>nonsense()</script>", "nonsense is not defined"),
        (
            '<div class="frame-slider" id="s"><input max="1" value="0"><div class="frame"></div>'
            '<div class="frame" hidden></div></div>',
            "slider s does not change",
        ),
    ],
)
def test_problems_are_seen(site, capsys, body, problem):
    assert site(body) == 1
    assert problem in capsys.readouterr().out


def test_says_so_where_no_browser_is_found(monkeypatch, capsys):
    monkeypatch.setattr(check_browser, "chromium", lambda: None)
    assert check_browser.main("anywhere") == 0
    assert "No Chromium found" in capsys.readouterr().out
