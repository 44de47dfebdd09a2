import json
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias_utils.metrics import (
    cosine_scores,
    explicit_query_precision,
    image_to_text_recall,
    random_floor,
    text_to_image_recall,
    worst_group_recall,
)


def test_recall_as_the_official_code(fixtures):
    data = np.load(fixtures / "published_metrics" / "published.npz")
    official = json.loads((fixtures / "published_metrics" / "published.json").read_text())
    scores = cosine_scores(data["zhang2025/image_embeddings"], data["zhang2025/text_embeddings"])
    own = data["zhang2025/text_to_image"]
    for k in (1, 5, 10):
        assert 100 * text_to_image_recall(scores, own, k) == pytest.approx(
            official["zhang2025"]["recall"][f"img_r{k}"], abs=1e-10
        )
        assert 100 * image_to_text_recall(scores, own, k) == pytest.approx(
            official["zhang2025"]["recall"][f"txt_r{k}"], abs=1e-10
        )
    for when, texts, images in (
        ("before", "e", "e"), ("after", "u", "u"), ("text_only", "u", "e"), ("image_only", "e", "u"),
    ):  # fmt: skip
        scores = cosine_scores(data[f"lian2026/image/{images}"], data[f"lian2026/text/{texts}"])
        for k in (5, 10):
            expected = official["lian2026"]["retrieval"][when][f"recall@{k}"]
            assert text_to_image_recall(scores, data["lian2026/retrieval/gt_image_of_text"], k) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10_000), st.booleans())
def test_recall_is_that_of_sorted_lists(texts, images, seed, tied):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (texts, images)).astype(float) if tied else rng.standard_normal((texts, images))
    own = rng.integers(0, images, texts)
    for k in range(1, images + 1):
        hits = [own[t] in np.argsort(-scores[t], kind="stable")[:k] for t in range(texts)]
        assert text_to_image_recall(scores, own, k, per_query=True).tolist() == hits
        assert text_to_image_recall(scores, own, k) == pytest.approx(np.mean(hits))
    for k in range(1, texts + 1):
        hits = [i in own[np.argsort(-scores[:, i], kind="stable")[:k]] for i in np.unique(own)]
        assert image_to_text_recall(scores, own, k, per_query=True).tolist() == hits


def test_recall_knows_what_chance_finds():
    own = np.repeat(np.arange(10), 3)[:-1]  # nine images with three texts, one with two
    found = image_to_text_recall(np.random.default_rng(0).random((29, 10)), own, 4)
    missed = [comb(29 - c, 4) / comb(29, 4) for c in [3] * 9 + [2]]
    assert found.conventions["floor"] == pytest.approx(1 - np.mean(missed))
    assert image_to_text_recall(np.zeros((29, 10)), own, 29).conventions["floor"] == 1
    assert text_to_image_recall(np.zeros((29, 10)), own, 4).conventions["floor"] == 0.4


def test_worst_group_recall_of_many_queries():
    rng = np.random.default_rng(0)
    scores, relevant, groups = rng.random((6, 40)), rng.random(40) < 0.5, rng.integers(0, 3, 40)
    found = worst_group_recall(scores, relevant, groups, 10)
    assert found.tolist() == [worst_group_recall(row, relevant, groups, 10) for row in scores]
    floor = random_floor(lambda s, g, k: worst_group_recall(s, relevant, g, k), groups, k=10, repeats=50)
    assert 0 < floor["mean"] < 10 / 40


def test_explicit_queries_still_find_the_group_that_they_name():
    groups = np.array(list("wwwmmmmm"))
    scores = np.stack([(groups == "w") + 0.0, (groups == "m") + 0.0, np.arange(8, 0, -1.0)])
    found = explicit_query_precision(scores, groups, 3, asked=["w", "m", "m"])
    assert found.tolist() == [1, 1, 0]
    assert found.conventions["floor"] == {"m": 5 / 8, "w": 3 / 8}
    assert explicit_query_precision(scores, groups, 4, asked=["w", "m", "m"]).conventions["ceiling"] == {"m": 1, "w": 0.75}
    one = explicit_query_precision(scores[0], groups, 4, asked="w")
    assert one == 0.75
    assert one.conventions["asked"] == ["w"]


def test_projection_destroys_explicit_queries():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 400)
    images = rng.standard_normal((400, 16))
    images[:, 0] += 4 * groups - 2
    texts = np.eye(16)[[0, 0]] * [[-1], [1]] + 0.2 * rng.standard_normal((2, 16))
    before = explicit_query_precision(cosine_scores(images, texts), groups, 50, asked=[0, 1]).mean()
    texts[:, 0] = 0
    after = explicit_query_precision(cosine_scores(images, texts), groups, 50, asked=[0, 1]).mean()
    assert before > 0.95
    assert 0.35 < after < 0.65


SCORES = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text_to_image_recall(SCORES, [0, 1, 4], 1), "whole numbers from 0 to 3, one of the images, got .*4"),
        (lambda: text_to_image_recall(SCORES, [0, -1, 3], 1), "got .*-1"),
        (lambda: text_to_image_recall(SCORES, [0, 0.5, 3], 1), "got .*0.5"),
        (lambda: text_to_image_recall(SCORES, [True, False, True], 1), "whole numbers"),
        (lambda: text_to_image_recall(SCORES, [0, None, 1], 1), "image_of_text holds 1 NaN"),
        (lambda: text_to_image_recall(SCORES, [0, 1], 1),
         r"need scores \(t, i\) and image_of_text \(t,\), got \(3, 4\) and \(2,\)"),
        (lambda: text_to_image_recall(SCORES[0], [0], 1), r"got \(4,\) and \(1,\)"),
        (lambda: text_to_image_recall(SCORES, [0, 1, 2], 5), "k must be a whole number from 1 to n = 4, got 5"),
        (lambda: image_to_text_recall(SCORES, [0, 1, 2], 4), "from 1 to n = 3, got 4"),
        (lambda: image_to_text_recall(SCORES * np.nan, [0, 1, 2], 1), "12 NaN"),
        (lambda: explicit_query_precision(SCORES, list("abab"), 2, asked=list("abz")),
         "unknown group asked for 'z'; choose one of: 'a', 'b'"),
        (lambda: explicit_query_precision(SCORES, list("abab"), 2, asked=["a"]), "for each of 3 queries, got 1"),
        (lambda: explicit_query_precision(SCORES, list("abab"), 2, asked=["a", None, "b"]), "asked holds 1 missing"),
        (lambda: explicit_query_precision(SCORES, ["a", "b", pd.NA, "b"], 2, asked=list("aab")), "groups hold 1 missing"),
        (lambda: worst_group_recall(SCORES, [True] * 3, list("abab"), 2), "one for each score"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
