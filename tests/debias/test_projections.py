import json

import numpy as np
import pytest
import torch

from debias_utils import metrics
from debias_utils.debias import (
    calibrated_projection,
    group_prototypes,
    insight_map,
    prototype_basis,
    soft_projection,
    token_projection,
)

D = 24


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def random(*shape, seed=0):
    return unit(np.random.default_rng(seed).standard_normal(shape))


# Biased prompts


@pytest.fixture(scope="module")
def official(fixtures):
    return np.load(fixtures / "projection_debias" / "projection.npz")


@pytest.mark.parametrize(("kind", "dtype", "atol"), [("disc", np.float32, 2e-5), ("disc64", np.float64, 1e-12)])
def test_the_authors_projection(official, kind, dtype, atol):
    pairs = official["candidate"].astype(dtype)[official["S"]]
    p = calibrated_projection(official["spurious"].astype(dtype), pairs, strength=float(official["lam"]))
    assert p.dtype == np.float64
    assert p == pytest.approx(official[f"{kind}/P"], abs=atol)
    query = official["query"].astype(dtype)
    assert unit(query @ p.T) == pytest.approx(official[f"{kind}/query_debiased"], abs=max(atol, 1e-5))
    assert calibrated_projection(official["spurious"], pairs, strength=0) == pytest.approx(official["disc64/P0"], abs=1e-12)


def test_the_authors_map_of_tokens(official):
    p = token_projection(official["gen/candidate"][official["gen/S"]], strength=float(official["gen/lam"]))
    assert p == pytest.approx(official["gen/P"], abs=2e-6)
    assert p == pytest.approx(p.T, abs=1e-12)
    tokens = official["gen/token_embeddings"]
    assert tokens @ p.T == pytest.approx(official["gen/token_embeddings_debiased"], abs=1e-5)


@pytest.mark.parametrize("attribute", ["gender", "age", "race"])
def test_the_rerun_of_biased_prompts_and_its_wrong_pairs(fixtures, attribute):
    rerun = np.load(fixtures / "biased_prompts_vld" / "biased_prompts.npz")
    table, spurious, candidates, pairs, query = (
        rerun[f"{attribute}/{name}"]
        for name in ("prompt_embeddings_raw", "spurious_index", "candidate_index", "pairs_S", "query_raw")
    )
    table = unit(table.astype(float))
    pairs = table[candidates[pairs]]
    p0 = calibrated_projection(table[spurious], pairs, strength=0)
    p = calibrated_projection(table[spurious], pairs, strength=1000)
    assert p0 == pytest.approx(rerun[f"{attribute}/P0"], abs=1e-5)
    assert p == pytest.approx(rerun[f"{attribute}/P"], abs=1e-4)
    assert unit(query @ p.T) == pytest.approx(rerun[f"{attribute}/query_debiased"], abs=1e-4)
    right = table[candidates].reshape(-1, 2, table.shape[1])  # the candidates are listed as pairs, one after the other
    meant = calibrated_projection(table[spurious], right, strength=1000)
    assert abs(unit(query @ meant.T) - rerun[f"{attribute}/query_debiased"]).max() > 0.05  # what the wrong pairs cost


def test_calibrated_projection_is_the_minimiser():
    spurious, pairs, strength = random(3, D), random(6, 2, D, seed=1), 40.0
    p, p0 = (calibrated_projection(spurious, pairs, strength=s) for s in (strength, 0))
    difference = pairs[:, 0] - pairs[:, 1]

    def loss(m):
        return ((m - p0) ** 2).sum() + strength * np.mean(((difference @ m.T) ** 2).sum(axis=1))

    step = np.random.default_rng(2).standard_normal((8, D, D)) * 1e-3
    assert all(loss(p + one) > loss(p) < loss(p - one) for one in step)
    slope = [(loss(p + one) - loss(p - one)) / np.linalg.norm(one) for one in step]
    assert slope == pytest.approx([0] * 8, abs=1e-6)


def test_calibration_leaves_nothing_along_the_prompts_and_closes_pairs():
    spurious, pairs = random(3, D), random(4, 2, D, seed=1)
    gaps = []
    for strength in (0, 10, 1e3, 1e6):
        p = calibrated_projection(spurious, pairs, strength=strength)
        assert spurious @ p == pytest.approx(np.zeros((3, D)), abs=1e-12)  # whatever comes out is orthogonal to the prompts
        gaps.append(np.linalg.norm((pairs[:, 0] - pairs[:, 1]) @ p.T, axis=1).max())
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    assert gaps[3] < 1e-4
    p = calibrated_projection(spurious, pairs, strength=10)
    assert abs(p - p.T).max() > 1e-3
    assert abs(p @ p - p).max() > 1e-3


def test_dependent_prompts_remove_no_arbitrary_direction():
    spurious = random(4, D)
    dependent = np.concatenate([spurious, spurious[:2], unit(spurious[:1] + 1e-6 * random(1, D, seed=3))])
    pinv = np.linalg.pinv(spurious)
    for given in (dependent, 7 * dependent, dependent.astype(np.float32), torch.tensor(dependent)):
        p0 = calibrated_projection(given, np.empty((0, 2, D)), strength=1000)
        assert np.linalg.matrix_rank(np.eye(D) - p0, tol=1e-6) == 4
        assert p0 == pytest.approx(np.eye(D) - pinv @ spurious, abs=1e-5)


@pytest.mark.parametrize(
    ("spurious", "pairs", "strength", "said"),
    [
        (random(2, D), random(3, D), 1, "positive_pairs must be"),
        (random(2, D), random(3, 2, D + 1), 1, "d = 24"),
        (random(2, D), random(3, 2, D), -1, "strength"),
        (random(2, D), random(3, 2, D), np.nan, "strength"),
        (random(2, D), np.full((1, 2, D), np.nan), 1, "NaN"),
        (np.zeros((1, D)), random(3, 2, D), 1, "length 0"),
        (random(D), random(3, 2, D), 1, "shape"),
    ],
)
def test_bad_prompts_and_pairs_are_refused(spurious, pairs, strength, said):
    with pytest.raises(ValueError, match=said):
        calibrated_projection(spurious, pairs, strength=strength)


# The closed form


@pytest.fixture(scope="module")
def lian(fixtures):
    folder = fixtures / "closed_form"
    return np.load(folder / "closed_form.npz"), json.loads((folder / "closed_form.json").read_text())


def prompts_of(lian):
    numbers, about = lian
    rows = {prompt: i for i, prompt in enumerate(about["prompt_rows"])}
    return {
        name: [
            numbers["prompt_embeddings"][[rows[t] for t in [one["t_g"], *one["T_g"]] if t.strip()]]
            for one in (groups[g] for g in about["groups"])
        ]
        for name, groups in about["prompts"].items()
    }


def test_the_codes_prototypes_and_spans(lian):
    numbers, about = lian
    found = {name: group_prototypes(sets) for name, sets in prompts_of(lian).items()}
    for name, prototypes in found.items():
        assert prototypes == pytest.approx(np.stack([numbers[f"prototypes/{name}/{g}"] for g in about["groups"]]), abs=1e-6)
        basis = prototype_basis(prototypes)
        assert basis.shape[1] == numbers[f"per_prompt/{name}/rank"]
        assert basis @ basis.T == pytest.approx(numbers[f"per_prompt/{name}/projector"], abs=1e-6)
    shared = group_prototypes(np.stack(list(found.values()), axis=1))
    assert shared == pytest.approx(np.stack([numbers[f"shared_prototypes/{g}"] for g in about["groups"]]), abs=1e-6)
    for span, key in (("differences", "projector"), ("prototypes", "projector_of_prototype_span_S")):
        basis = prototype_basis(shared, span=span)
        assert basis @ basis.T == pytest.approx(numbers[key], abs=1e-6)


@pytest.mark.parametrize(("case", "atol"), [("text", 1e-5), ("image", 3e-5), ("small_leakage", 3e-5)])
def test_the_codes_closed_form(lian, case, atol):
    numbers, _ = lian
    e = numbers[f"{case}/e"]
    u = soft_projection(e, numbers["A"])
    assert u.dtype == np.float32
    assert u == pytest.approx(numbers[f"{case}/u"], abs=atol)
    assert abs(soft_projection(e.astype(float), numbers["A"]) @ numbers["A"])[:, 0] == pytest.approx(
        abs(numbers[f"{case}/alpha_float64"]), abs=1e-5
    )
    edge = soft_projection(numbers["edge/e"], numbers["A"])
    assert edge[2:] == pytest.approx(numbers["edge/u"][2:], abs=1e-5)
    assert edge[:2] == pytest.approx(unit(numbers["edge/e"][:2]), abs=1e-6)  # inside: the code's answer is rounding
    assert soft_projection(e, np.empty((e.shape[1], 0))) == pytest.approx(unit(e), abs=1e-6)


def test_rows_that_are_not_unit_leave_as_unit_ones_do_where_the_code_lets_the_attribute_grow(lian):
    numbers, _ = lian
    e, a = numbers["non_unit/e"], numbers["A"]
    ours = soft_projection(e, a)
    assert ours == pytest.approx(soft_projection(unit(e), a), abs=1e-6)
    before, after = (abs(unit(x) @ a)[:, 0] for x in (e, numbers["non_unit/u"]))
    assert (after / before).max() > 3
    assert (abs(ours @ a)[:, 0] / before).max() <= 0.5 + 1e-6


def test_the_codes_retrieval_and_classification(lian):
    numbers, about = lian
    text, image, a = numbers["text/e"], numbers["image/e"], numbers["A"]
    soft_text, soft_image = soft_projection(text, a), soft_projection(image, a)
    cases = {"before": (text, image), "after": (soft_text, soft_image)}
    cases |= {"text_only": (soft_text, image), "image_only": (text, soft_image)}
    for name, (t, v) in cases.items():
        scores = t @ v.T
        for k in (10, 40):
            skew = metrics.max_skew_at_k(scores, numbers["image_group"], k, target="pool", zero="-inf")
            assert np.mean(skew) == pytest.approx(about["retrieval"][name][f"maxskew@{k}"], abs=1e-6)
        order = np.argsort(-scores, axis=1)
        for k in (5, 10):
            hits = (order[:, :k] == numbers["retrieval/gt_image_of_text"][:, None]).any(axis=1)
            assert hits.mean() == pytest.approx(about["retrieval"][name][f"recall@{k}"])
    for name, (t, v) in (("before", cases["before"]), ("after", cases["after"])):
        assert np.array_equal((v @ t.T).argmax(axis=1), numbers[f"classification/pred_{name}"])


@pytest.mark.parametrize("p", [1e-8, 1e-4, 0.1, 0.3, 0.6, 0.9, 0.99])
def test_alpha_solves_the_problem_that_it_is_said_to(p):
    e, axis = np.zeros(D), np.eye(D)[:, :1]
    e[0], e[1] = p, np.sqrt(1 - p**2)
    o = e[1]
    value = {name: soft_projection(e, axis, factor=name) for name in ("closed form", "printed problem", "fixed", "full")}
    alpha = {name: u[0] for name, u in value.items()}
    loss = {name: (p**2 + o**2) - u @ e for name, u in value.items()}  # V = 1 - <u, e>
    least = p**2 / (1 + o)  # V at alpha = 0, 1 - |orth| without its cancelling
    if p > 0.01:  # V cancels below
        assert alpha["closed form"] / p == pytest.approx(loss["closed form"] / least, abs=1e-6)
        assert alpha["printed problem"] == pytest.approx(loss["printed problem"], abs=1e-9)
    e_ = p + least / p  # the formula as printed
    if p > 0.01:
        assert alpha["closed form"] == pytest.approx((e_ - o * np.sqrt(e_**2 - p**2)) / (e_**2 + o**2), abs=1e-9)
    assert alpha["full"] == pytest.approx(0, abs=1e-15)
    assert 0 < alpha["printed problem"] < alpha["closed form"] <= 0.5
    if p <= 1e-4:
        assert alpha["closed form"] / p == pytest.approx(0.381966, abs=1e-6)
        assert alpha["fixed"] / p == pytest.approx(0.381966, abs=1e-6)
        assert alpha["printed problem"] / p == pytest.approx(p / 2, rel=1e-3)
    for u in value.values():
        assert np.linalg.norm(u) == pytest.approx(1)
        assert u[2:] == pytest.approx(0)


def test_soft_projection_is_no_projection():
    basis = np.linalg.qr(np.random.default_rng(4).standard_normal((D, 2)))[0]
    e = random(50, D, seed=5)
    once = soft_projection(e, basis)
    twice = soft_projection(once, basis)
    sizes = [np.linalg.norm(x @ basis, axis=1) for x in (e, once, twice)]
    assert (sizes[1] < 0.5 * sizes[0] + 1e-9).all()
    assert (sizes[2] < 0.5 * sizes[1] + 1e-9).all()
    clean = unit(e - e @ basis @ basis.T)
    assert soft_projection(clean, basis) == pytest.approx(clean)
    full = soft_projection(e, basis, factor="full")
    assert full == pytest.approx(clean)
    assert soft_projection(full, basis, factor="full") == pytest.approx(full)
    assert abs(soft_projection(e, basis, factor="fixed") - once).max() < 0.02


def test_soft_projection_keeps_kind_and_has_a_gradient():
    basis = np.eye(D)[:, :2]
    e = random(3, D)
    e[1, :2] = 0  # no component at all: no slope of its length
    for factor in ("closed form", "printed problem", "fixed", "full"):
        x = torch.tensor(e, requires_grad=True)
        (slope,) = torch.autograd.grad(soft_projection(x, basis, factor=factor)[:, 3].sum(), x)
        assert torch.isfinite(slope).all()
    half = soft_projection(torch.tensor(e, dtype=torch.float16), basis)
    assert half.dtype == torch.float16
    assert half.numpy() == pytest.approx(soft_projection(e, basis), abs=2e-3)
    assert soft_projection(e[0], basis) == pytest.approx(soft_projection(e, basis)[0])


@pytest.mark.parametrize(
    ("e", "basis", "options", "said"),
    [
        (random(2, D), np.eye(D)[:2], {}, "basis"),
        (random(2, D), 2 * np.eye(D)[:, :2], {}, "length 1"),
        (random(2, D), np.eye(D)[:, [0, 0]], {}, "orthogonal"),
        (np.zeros((2, D)), np.eye(D)[:, :2], {}, "zeros"),
        (np.full((2, D), np.nan), np.eye(D)[:, :2], {}, "NaN"),
        (np.eye(D)[:1], np.eye(D)[:, :2], {"factor": "full"}, "nothing is left"),
        (random(2, D), np.eye(D)[:, :2], {"factor": "half"}, "closed form"),
    ],
)
def test_bad_input_to_soft_projection_is_refused(e, basis, options, said):
    with pytest.raises(ValueError, match=said):
        soft_projection(e, basis, **options)


def test_the_rank_of_prototypes():
    p = random(3, D)
    one, other = prototype_basis(p), prototype_basis(p[[2, 0, 1]])  # whichever group is the reference
    assert one.shape == other.shape == (D, 2)
    assert one @ one.T == pytest.approx(other @ other.T)
    assert prototype_basis(np.concatenate([p, p[:1]])).shape[1] == 2  # a group that stands twice
    assert prototype_basis(p[[0, 0]]).shape[1] == 0
    assert prototype_basis(p[[0, 0]] + 1e-8 * random(2, D, seed=1)).shape[1] == 0  # rounding is no direction
    assert prototype_basis(p, span="prototypes").shape[1] == 3
    assert prototype_basis(np.stack([p[0], p[1], (p[0] + p[1]) / 2])).shape[1] == 1
    assert prototype_basis(np.stack([p[0], p[1], unit(p[0] + p[1])])).shape[1] == 2  # on the sphere a middle leaves the line
    with pytest.raises(ValueError, match="span"):
        prototype_basis(p, span="neither")
    with pytest.raises(ValueError, match=r"\(a, d\)"):
        prototype_basis(p[0])


def test_bad_groups_of_prompts_are_refused():
    for sets, said in (
        ([], "each group"),
        ([random(2, D), random(2, D + 1)], "one width"),
        ([np.stack([random(D), -random(D)])], "the mean of set 0"),
        ([np.zeros((1, D))], "length 0"),
    ):
        with pytest.raises(ValueError, match=said):
            group_prototypes(sets)


# RoboShot


@pytest.fixture(scope="module")
def adila(fixtures):
    return np.load(fixtures / "roboshot" / "roboshot.npz")


@pytest.mark.parametrize("steps", ["reject", "accept", "both"])
def test_the_codes_insights(adila, steps):
    reject = adila["reject_emb_all"] if steps != "accept" else ()
    accept = adila["accept_emb_all"] if steps != "reject" else ()
    x = unit(adila["test_X"] @ insight_map(reject, accept).T)
    assert x == pytest.approx(adila[f"full_rank/{steps}/test_proj"], abs=1e-6)
    assert np.array_equal((x @ unit(adila["label_emb"]).T).argmax(axis=1), adila[f"full_rank/{steps}/preds"])


def test_dependent_insights_remove_what_they_span_where_the_code_removes_more(adila):
    pairs = adila["rank_deficient/reject_emb_all"]  # 6 pairs of 4 items
    removed = np.eye(pairs.shape[-1]) - insight_map(pairs)
    assert removed == pytest.approx(adila["rank_deficient/projector_true_rank"], abs=1e-10)
    assert np.linalg.matrix_rank(adila["rank_deficient/projector_spurious"]) == 6
    assert np.linalg.matrix_rank(removed, tol=1e-8) == 3
    assert np.eye(20) - insight_map(adila["reject_emb_all"]) == pytest.approx(adila["full_rank/projector_spurious"], abs=1e-10)


def test_insights_one_after_the_other_as_printed(adila):
    reject, accept, x = adila["reject_emb_all"], adila["accept_emb_all"], unit(adila["test_X"])
    for sets, sign in ((reject, -1), (accept, 1)):
        for pole, other in sets:
            v = unit(pole - other)
            x = unit(x + sign * (x @ v)[:, None] * v)
    printed = unit(adila["test_X"] @ insight_map(reject, accept, sequence=True).T)
    assert printed == pytest.approx(x)
    coded = unit(adila["test_X"] @ insight_map(reject, accept).T)
    assert 0.01 < abs(printed - coded).max() < 0.5
    left = unit(adila["test_X"] @ insight_map(reject, sequence=True).T) @ unit(reject[:, 0] - reject[:, 1]).T
    assert abs(left[:, 2]).max() < 1e-12  # the last one is gone, the first has come back
    assert abs(left[:, 0]).max() > 0.01


def test_accepting_doubles_a_component_and_may_bring_back_what_was_rejected():
    axis, other = np.eye(D)[0], unit(np.eye(D)[0] + np.eye(D)[1])
    zero = np.zeros(D)
    m = insight_map([np.stack([axis, zero])], [np.stack([other, zero])])
    assert m @ axis == pytest.approx(zero)
    assert (m @ np.eye(D)[1])[0] == pytest.approx(0.5)  # of what was not there at all
    assert insight_map((), [np.stack([axis, zero])]) == pytest.approx(np.eye(D) + np.outer(axis, axis))


def test_an_insight_with_more_than_two_texts():
    texts = random(3, D)
    assert insight_map([texts]) == pytest.approx(insight_map([texts[:2], texts[[0, 2]], texts[1:]]))


@pytest.mark.parametrize(
    ("reject", "accept", "said"),
    [
        ((), (), "at least one"),
        ([random(1, D)], (), "at least 2 texts"),
        ([random(1, D).repeat(2, axis=0)], (), "same embedding"),
        ([random(2, D)], [random(2, D + 1)], "one width"),
        ([random(2, D), random(2, D + 1)], (), "one width"),
        ([np.full((2, D), np.nan)], (), "NaN"),
    ],
)
def test_bad_insights_are_refused(reject, accept, said):
    with pytest.raises(ValueError, match=said):
        insight_map(reject, accept)
