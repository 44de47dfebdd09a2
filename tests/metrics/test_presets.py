import json

import numpy as np
import pytest

from debias_utils.metrics import PRESETS, cosine_scores, kl_at_k, max_skew_at_k, ndkl, preset, published_max_skew

pytestmark = pytest.mark.filterwarnings("ignore::debias_utils.metrics.FlooredWarning")


@pytest.fixture(scope="module")
def data(fixtures):
    folder = fixtures / "published_metrics"
    return np.load(folder / "published.npz"), json.loads((folder / "published.json").read_text())


def test_lian2026(data):
    numbers, official = data
    for when, texts, images in (
        ("before", "e", "e"), ("after", "u", "u"), ("text_only", "u", "e"), ("image_only", "e", "u"),
    ):  # fmt: skip
        given = (numbers[f"lian2026/image/{images}"], numbers[f"lian2026/text/{texts}"], numbers["lian2026/image_group"])
        for k in (10, 40):
            expected = official["lian2026"]["retrieval"][when][f"maxskew@{k}"]
            assert published_max_skew(*given, "lian2026", k=k) == pytest.approx(expected, abs=1e-6)


def test_jung2024(data):
    numbers, official = data
    gender = numbers["jung2024/query/image_gender"]
    for when, images, texts in (
        ("before", "image", "text"), ("after", "image_imputed", "text_imputed"), ("image_only", "image_imputed", "text"),
    ):  # fmt: skip
        given = numbers[f"jung2024/query/{images}"], numbers[f"jung2024/query/{texts}"]
        for k in (10, 20):
            expected = official["jung2024"]["skew"][when][str(k)]
            assert published_max_skew(*given, gender, "jung2024", k=k) == pytest.approx(expected["as_released"], abs=1e-4)
            paper = preset("jung2024")
            by_query = max_skew_at_k(cosine_scores(*given, **paper.scores), gender, **{**paper.skew, "k": k})
            assert np.allclose(by_query, expected["per_query"], atol=1e-4)


def test_gerych2024(data):
    numbers, official = data
    for case, methods in official["gerych2024"].items():
        for method, by_k in methods.items():
            given = (numbers[f"gerych2024/{case}/{name}"] for name in ("target", method, "target_class"))
            images, query, groups = given
            for k, expected in by_k.items():
                found = published_max_skew(images, query, groups, "gerych2024", k=int(k))
                assert found == pytest.approx(expected["max_skew"], abs=1e-12)
                assert kl_at_k(cosine_scores(images, query)[0], groups, int(k)) == pytest.approx(expected["kl"], abs=1e-12)


@pytest.mark.parametrize("name", ["two_groups", "seven_groups", "ties"])
def test_berg2022_and_zhang2025(fixtures, name):
    data = np.load(fixtures / "ranking_metrics" / f"{name}.npz")
    for j, k in enumerate(data["ks"].tolist()):
        for paper in (preset("berg2022"), preset("zhang2025")):
            assert paper.scores == {"normalize_images": False}
            found = max_skew_at_k(data["scores"], data["labels"], **{**paper.skew, "k": k})
            assert np.allclose(found, data["raw/maxskew_eq_opp"][:, j], atol=1e-9, rtol=0)
            found = ndkl(data["scores"], data["labels"], **{**paper.ndkl, "k": k})
            assert np.allclose(found, data["raw/ndkl_eq_opp"][:, j], atol=1e-9, rtol=0)


def test_as_it_should_be():
    rng = np.random.default_rng(0)
    images, prompts, groups = rng.standard_normal((400, 8)), rng.standard_normal((5, 8)), rng.integers(0, 3, 400)
    for name in PRESETS:
        found = published_max_skew(images, prompts, groups, name, k=60, corrected=True)
        target = preset(name).skew["target"]
        expected = max_skew_at_k(cosine_scores(images, prompts), groups, 60, target=target, zero="exclude").mean()
        assert found == pytest.approx(expected)
        assert found.conventions["preset"] == name
        assert found.conventions["corrected"] is True
        assert found.conventions["prompts"] == "mean"
    values = {round(published_max_skew(images, prompts, groups, name, k=60), 6) for name in PRESETS}
    assert len(values) == 3  # of one ranking


def test_conventions_say_how_a_number_came_about():
    rng = np.random.default_rng(0)
    images, prompts, groups = rng.standard_normal((200, 8)), rng.standard_normal((3, 8)), np.arange(200) % 2
    found = published_max_skew(images, prompts, groups, "jung2024")
    expected = {
        "k": 100, "target": "uniform", "zero": "-inf", "ties": "order", "absolute": True, "over_prompts": 100.0,
        "prompts": "last", "normalize_images": False, "normalize_prompts": False, "preset": "jung2024", "corrected": False,
    }  # fmt: skip
    assert expected.items() <= found.conventions.items()


def test_softmax_over_prompts():
    rng = np.random.default_rng(0)
    images, prompts = rng.standard_normal((20, 4)), rng.standard_normal((3, 4))
    cosines = np.asarray(cosine_scores(images, prompts))
    expected = np.exp(5 * cosines) / np.exp(5 * cosines).sum(axis=0)
    assert np.allclose(np.exp(cosine_scores(images, prompts, over_prompts=5)), expected)
    raw = cosine_scores(images, prompts, normalize_images=False, normalize_prompts=False)
    assert np.allclose(raw, prompts @ images.T)
    assert raw.conventions == {"normalize_images": False, "normalize_prompts": False}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("clip"), "unknown preset 'clip'; choose one of: 'geyik2019', 'berg2022'"),
        (lambda: published_max_skew(np.eye(3), np.eye(3), [0, 1, 0], "berg2022"),
         "the preset 'berg2022' has no k of its own: give one"),
        (lambda: published_max_skew(np.eye(3), np.eye(3), [0, 1, 0], "zhang2025"),
         "k must be a whole number from 1 to n = 3, got 1000"),
        (lambda: cosine_scores(np.eye(3), np.eye(3), over_prompts=0), "over_prompts must be a logit scale above 0"),
        (lambda: cosine_scores(np.eye(3), np.eye(3), over_prompts=np.nan), "such as 100, or None, got nan"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
