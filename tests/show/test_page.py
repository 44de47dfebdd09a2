import base64
import io

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from debias_utils import show
from debias_utils.show import page


@pytest.fixture
def shown(monkeypatch):
    """What a cell would display, as HTML or Markdown text."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda item: outputs.append(item.data))
    return outputs


def test_check(capsys):
    show.check(..., 1.0, hint="h")
    show.check(0.995, 1.0, hint="h")
    show.check(0.5, 1.0, hint="halve it")
    show.check("abc", 1.0, hint="a number")
    show.check("nurse", "nurse", hint="h")
    show.check(4, lambda a: a > 3, hint="h")
    show.check(True, True, hint="h")
    show.check({1, 2}, {2, 1}, hint="h")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["Not a", "Right", "Not y", "Not y", "Right", "Right", "Right", "Right"]
    assert "halve it" in lines[2]


def test_pictures_carry_alt_text(shown):
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    show.gallery(images, columns=2, alt='four small "test" pictures', caption="c", labels=["a", "b"])
    tags = BeautifulSoup(shown[0], "html.parser").find_all("img")
    assert [tag["alt"] for tag in tags] == ['four small "test" pictures Row: a.', 'four small "test" pictures Row: b.']
    first = Image.open(io.BytesIO(base64.b64decode(tags[0]["src"].split(",")[1])))
    assert np.array_equal(np.asarray(first), np.concatenate([images[0], images[1]], axis=1))
    with pytest.raises(ValueError, match="alt text must say what the picture shows, got 'plot'"):
        show.gallery(images, columns=2, alt="plot")
    with pytest.raises(ValueError, match="2 rows need as many labels, got 1"):
        show.gallery(images, columns=2, alt="four small test pictures", labels=["a"])


def test_grid_fills_with_white():
    assert (show.grid(np.zeros((3, 2, 2, 3), np.uint8), columns=2)[2:, 2:] == 255).all()


def test_zoom():
    png = show.to_png(np.zeros((2, 3, 3), np.uint8), zoom=4)
    assert Image.open(io.BytesIO(png)).size == (12, 8)


def test_slider_shows_one_frame_and_lists_all(shown):
    frame = show.to_png(np.zeros((2, 2, 3), np.uint8))
    show.slider([frame] * 3, ["0", "0.5", "1"], alt=[f"a frame number {i}" for i in range(3)], name="rho", start=1)
    soup = BeautifulSoup(shown[0], "html.parser")
    assert [tag.has_attr("hidden") for tag in soup.select(".frame")] == [True, False, True]
    assert soup.find("input")["max"] == "2"
    with pytest.raises(ValueError, match="one length"):
        show.slider([frame], ["0", "1"], alt=["a b c d"], name="rho")


def test_table_and_figure(shown):
    show.table(pd.DataFrame({"a": [0.123456], "b": [np.nan]}), caption="numbers & more", digits=2)
    assert "0.12" in shown[0]
    assert "numbers &amp; more" in shown[0]
    import matplotlib.pyplot as plt

    show.style()
    fig, axis = plt.subplots()
    show.bars(axis, [1, 2], low=[0.5, 1.5], high=[1.5, 2.5], labels=["x", "y"])
    show.figure(fig, alt="two bars with their intervals", caption="cap")
    assert not plt.get_fignums()
    assert BeautifulSoup(shown[1], "html.parser").find("img")["alt"] == "two bars with their intervals"


def test_about_this_run_names_the_weights(shown):
    import debias_utils

    parts = debias_utils.load_profile(device="cpu", seed=3)
    show.about_this_run(parts)
    assert parts.clip().checksum[:12] in shown[0]
    assert "seed 3" in shown[0]
    assert page.image_tag(b"x", alt="one two three four", width=3).startswith('<img width="3"')
