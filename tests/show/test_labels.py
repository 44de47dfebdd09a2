"""Labels, names and captions may be anything, such as a reader's file names: a page shows them as themselves, and runs none."""

import json

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

import check_browser
from debias_utils import show

HOSTILE = [
    "<b>bold</b> & co.jpg",
    "</script><script>document.title = 'run'</script>",
    """'); document.title = 'run'; ("\\""",
    '"><img src=x onerror="document.title=\'run\'">',
    "</option></datalist><!-- a comment",
    "line\u2028and\u2029paragraph \\u003c \\",
    "&lt;already&gt; $x$ and $y$",
    "ünï – 写真.png",
]
FRAME = show.to_png(np.zeros((4, 4, 3), np.uint8))
PICTURES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda item: outputs.append(item.data))
    return outputs


def soup(text):
    return BeautifulSoup(text, "html.parser")


@pytest.mark.parametrize("label", HOSTILE)
def test_galleries_figures_and_tables_show_a_label_as_itself(shown, label):
    import matplotlib.pyplot as plt

    show.gallery(PICTURES, columns=1, alt="two small test pictures", caption=label, labels=[label, "b"])
    show.gallery(PICTURES, columns=2, alt=f"two small test pictures {label}", caption=label)
    show.figure(plt.figure(), alt=f"an empty figure of {label}", caption=label)
    show.table(pd.DataFrame({label: [label], "n": [1.0]}), caption=label)
    pages = [soup(text) for text in shown]
    assert [page.find("figcaption").text for page in pages[:3]] == [label] * 3
    assert pages[0].find("th").text == label
    assert pages[0].find("img")["alt"] == f"two small test pictures Row: {label}."
    assert pages[1].find("img")["alt"] == f"two small test pictures {label}"
    assert pages[3].find("caption").text == pages[3].find("th").text == pages[3].find("td").text == label
    for page in pages:
        assert not page.find("script")
        assert not page.find("b")


@pytest.mark.parametrize("label", HOSTILE)
def test_a_slider_shows_a_label_as_itself(shown, label):
    show.slider([FRAME, FRAME], [label, label], alt=[f"the first frame of {label}"] * 2, name=label)
    page = soup(shown[0])
    (script,) = page.find_all("script")
    assert page.find("output").text == label
    assert [option["label"] for option in page.find_all("option")] == [label, label]
    assert page.find("input")["aria-label"] == label
    assert label not in script.string
    assert page.find("input")["list"] == page.find("datalist")["id"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_sentence_shows_html_and_escaped_names_as_themselves(shown, label):
    show.say(f"Before **{show.plain(label)}** after")
    paragraph = soup(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(shown[0])).find("p")
    assert paragraph.find("strong").text == " ".join(label.split())
    show.say(f"Unescaped {label} and `a <b` of *Markdown*, 1 < 2")
    page = soup(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(shown[1]))
    assert {tag.name for tag in page.find_all()} <= {"p", "code", "em"}
    assert page.find("em").text == "Markdown"
    if "`" not in label:
        assert page.find("code").text == "a <b"


@pytest.mark.parametrize(
    "text", ["\\`<script>x</script>`", "``a` <script>x</script>``b`", "a `\n\n<script>x</script> `", "|a `|<script>x</script> `|"]
)
def test_no_sentence_runs_a_script(shown, text):
    show.say(text)
    assert not soup(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(shown[0])).find("script")


def test_half_characters_of_file_names_do_not_end_a_page(shown):
    label = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    show.gallery(PICTURES, columns=1, alt="two small test pictures", caption=label, labels=[label, label])
    show.slider([FRAME], [label], alt=["one frame of a slider"], name=label)
    show.table(pd.DataFrame({"name": [label]}, dtype=object), caption=label)
    show.say(show.plain(label))
    for text in shown:
        json.dumps(text, ensure_ascii=False).encode("utf-8")
    assert "caf\\udce9.png" in shown[0]


def test_long_names_are_not_cut_and_labels_need_not_be_text(shown, tmp_path):
    show.table(pd.DataFrame({"name": ["x" * 300]}), caption="long names")
    assert "x" * 300 in shown[0]
    show.gallery(PICTURES, columns=1, alt="two small test pictures", labels=np.array([1, 2]))
    show.gallery(PICTURES, columns=1, alt="two small test pictures", labels=[tmp_path, None])
    show.slider([FRAME], [0.5], alt=["one frame of a slider"], name="rho")
    assert soup(shown[3]).find("output").text == "0.5"


def test_a_dollar_sign_in_a_bar_s_label_is_a_dollar_sign():
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots()
    show.bars(axis, [1, 2], low=[1, 2], high=[1, 2], labels=["$5 to $7", "$\\frac{"])
    fig.canvas.draw()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["$5 to $7", "$\\frac{"]
    plt.close(fig)


def test_in_a_browser_labels_show_as_themselves_and_nothing_runs(shown, tmp_path):
    executable = check_browser.chromium()
    if executable is None:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    for label in HOSTILE:
        show.slider([FRAME, FRAME], ["first", label], alt=["the first of two frames", "the second of two frames"], name=label)
        show.gallery(PICTURES, columns=1, alt="two small test pictures", caption=label, labels=[label, label])
    (tmp_path / "page.html").write_text("<!doctype html><meta charset=utf-8><title>still</title>" + "".join(shown), "utf-8")
    move = "s => {const i = s.querySelector('input'); i.value = 1; i.dispatchEvent(new Event('input'));"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=check_browser.FLAGS)
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        read = [
            s.evaluate(move + "return s.querySelector('output').textContent}") for s in page.query_selector_all(".frame-slider")
        ]
        captions = [tag.text_content() for tag in page.query_selector_all("figcaption")]
        title = page.title()
        browser.close()
    assert (read, captions, title, errors) == (HOSTILE, HOSTILE, "still", [])
