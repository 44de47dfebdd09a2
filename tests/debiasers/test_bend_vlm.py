import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from debias_utils.debias import equalise
from debias_utils.debias.bend import attribute_directions, span_basis
from debias_utils.debiasers import BendVLM

D = 16
CASES = pytest.mark.parametrize("case", ["gender", "race4"])


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def official(fixtures):
    return dict(np.load(fixtures / "bendvlm" / "bendvlm.npz"))


@pytest.fixture(scope="module")
def about(fixtures):
    return json.loads((fixtures / "bendvlm" / "bendvlm.json").read_text())


def of(official, case):
    return {name.removeprefix(f"{case}/"): value for name, value in official.items() if name.startswith(f"{case}/")}


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 300)
    means = 0.5 * rng.standard_normal((3, D))
    return {
        "reference": rows(rng.standard_normal((300, D)) + means[groups]),
        "classes": groups,
        "query": rows(rng.standard_normal(D)),
    }


@CASES
def test_official_first_step(official, about, case):
    found = of(official, case)
    directions = attribute_directions(found["augmentations"], found["spurious_prompts"])
    assert directions == pytest.approx(found["local_rows"], abs=1e-6)
    basis = span_basis(directions.astype(float))
    assert len(basis) == about[case]["true_rank"]
    projector = np.eye(basis.shape[1]) - basis.T @ basis
    assert projector == pytest.approx(found["P_exact_rank"], abs=1e-6)
    assert rows(found["query"] @ projector) == pytest.approx(found["exact_rank/query_after_step1"], abs=1e-6)


def test_as_many_components_as_rows_remove_directions_of_chance(official, about):
    """The released projector takes 10 directions out for four races, whose rows span 7: the other three were drawn."""
    for case, junk in (("gender", 0), ("race4", 3)):
        found = of(official, case)
        assert about[case]["rows"] - about[case]["true_rank"] == junk
        removed = np.trace(np.eye(len(found["P_as_run"])) - found["P_as_run"])
        assert removed == pytest.approx(about[case]["trace_removed_as_run"], abs=1e-6)
        assert removed - about[case]["true_rank"] == pytest.approx(junk, abs=1e-5)
        assert (abs(found["P_as_run"] - found["P_exact_rank"]).max() > 0.4) == bool(junk)


@CASES
@pytest.mark.parametrize("variant", ["full", "exact_rank", "step2_only"])
def test_official_second_step(official, about, case, variant):
    found = of(official, case)
    query = found[f"{variant}/query_after_step1"]
    near = equalise(query[0], found["reference"], found["reference_class"], n_neighbors=about[case]["num_neighbors"])
    assert near.shape == query[0].shape
    assert near == pytest.approx(found[f"{variant}/e_star"][0], abs=1e-6)
    assert near == pytest.approx(found[f"{variant}/e_closed_form"][0], abs=1e-9)
    similar = [mean @ near for mean in found[f"{variant}/y_means"]]
    assert similar == pytest.approx([found[f"{variant}/x_mean"] @ near] * len(similar), abs=1e-9)


@CASES
@pytest.mark.parametrize(("steps", "variant"), [("both", "exact_rank"), ("equalise", "step2_only")])
def test_the_class_is_the_official_method_with_the_exact_rank(official, about, case, steps, variant):
    found = of(official, case)
    model = BendVLM(steps, about[case]["num_neighbors"])
    model.fit(images=found["reference"], groups=found["reference_class"], sets=[found["spurious_prompts"]])
    x = found["query"].astype(float)
    expected = found[f"{variant}/e_star"]
    assert model.transform_text(x, group_queries=found["augmentations"][None]) == pytest.approx(expected, abs=1e-6)
    assert model.transform_text(x[0], group_queries=found["augmentations"]) == pytest.approx(expected[0], abs=1e-6)
    only = BendVLM("project").fit(images=found["reference"], groups=found["reference_class"], sets=[found["spurious_prompts"]])
    after = only.transform_text(x, group_queries=found["augmentations"][None])
    assert after == pytest.approx(found["exact_rank/query_after_step1"], abs=1e-6)


def test_against_a_solver(world):
    near = equalise(world["query"], world["reference"], world["classes"], n_neighbors=7)
    similarity = world["reference"] @ world["query"]
    means = []
    for k in range(3):
        members = np.flatnonzero(world["classes"] == k)
        means.append(world["reference"][members[np.argsort(similarity[members])[-7:]]].mean(axis=0))
    constraints = [{"type": "eq", "fun": lambda e: e @ e - 1}]
    constraints += [{"type": "eq", "fun": lambda e, k=k: e @ (means[k] - means[0])} for k in (1, 2)]
    solved = minimize(lambda e: -e @ world["query"], world["query"], constraints=constraints, tol=1e-12).x
    assert near == pytest.approx(solved, abs=1e-5)


def test_kind_scale_and_several_queries(world):
    args = (world["reference"], world["classes"])
    queries = np.stack([world["query"], world["reference"][0]])
    both = equalise(queries, *args, n_neighbors=5)
    assert both[0] == pytest.approx(equalise(world["query"], *args, n_neighbors=5))
    assert equalise(7 * queries, 3 * args[0], args[1], n_neighbors=5) == pytest.approx(both)
    names = np.array(["b", "a", "c"])[args[1]]
    assert equalise(queries, args[0], names, n_neighbors=5) == pytest.approx(both)  # no class is the reference one
    half = equalise(torch.tensor(queries, dtype=torch.float16), *args, n_neighbors=5)
    assert half.dtype == torch.float16
    assert half.numpy() == pytest.approx(both, abs=2e-3)
    assert equalise(both[0], *args, n_neighbors=300) @ both[0] > 0.9


def test_few_members_duplicates_and_few_rows(world):
    reference, query = world["reference"], world["query"]
    lonely = np.array([0] * 299 + [1])
    near = equalise(query, reference, lonely, n_neighbors=299)
    assert near @ reference[299] == pytest.approx(near @ reference[:299].mean(axis=0))  # all it has, the one picture
    same = equalise(query, np.concatenate([reference, reference]), np.repeat([0, 1], 300), n_neighbors=5)
    assert same == pytest.approx(query)  # no difference, nothing to do: rounding is no direction
    few = equalise(query, reference[:4], [0, 1, 2, 2], n_neighbors=1)
    assert abs(few @ (reference[1] - reference[0])) < 1e-12


def test_bad_input(world):
    reference, classes, query = world["reference"], world["classes"], world["query"]
    for wrong in ((query[:-1], reference, classes), (query, reference, classes[:-1]), (query[None, None], reference, classes)):
        with pytest.raises(ValueError, match=r"query \(d,\)"):
            equalise(*wrong, n_neighbors=3)
    with pytest.raises(ValueError, match="two classes"):
        equalise(query, reference, [0] * 300, n_neighbors=3)
    with pytest.raises(ValueError, match="n_neighbors"):
        equalise(query, reference, classes, n_neighbors=0)
    with pytest.raises(ValueError, match="NaN"):
        equalise(query * np.nan, reference, classes, n_neighbors=3)
    with pytest.raises(ValueError, match="result holds rows of length 0"):
        equalise(reference[1] - reference[0], reference[:2], [0, 1], n_neighbors=1)


def test_the_second_step_undoes_some_of_the_first(official, about):
    found = of(official, "race4")
    model = BendVLM(n_neighbors=5).fit(
        images=found["reference"], groups=found["reference_class"], sets=[found["spurious_prompts"]]
    )
    basis = span_basis(found["local_rows"].astype(float))
    x, wordings = found["query"].astype(float), {"group_queries": found["augmentations"][None]}
    leak = [np.linalg.norm(y @ basis.T) for y in (x, found["exact_rank/query_after_step1"], model.transform_text(x, **wordings))]
    assert leak[1] < 1e-6 < 0.01 < leak[2] < leak[0]


def test_needs_the_query_s_own_wordings(world):
    model = BendVLM().fit(images=world["reference"], groups=world["classes"])
    x = world["query"][None]
    with pytest.raises(ValueError, match="group_queries"):
        model.transform_text(x)
    for wrong in (np.ones((2, 3, D)), np.ones((1, 3, D + 1))):
        with pytest.raises(ValueError, match="group_queries"):
            model.transform_text(x, group_queries=wrong)
    BendVLM("equalise").fit(images=world["reference"], groups=world["classes"]).transform_text(x)
    with pytest.raises(ValueError, match="project"):
        BendVLM("first").fit(images=world["reference"], groups=world["classes"])
    with pytest.raises(ValueError, match="one width"):
        BendVLM().fit(images=world["reference"], groups=world["classes"], sets=[np.eye(3)])


def test_near_collinear_wordings_and_no_difference(world):
    rng = np.random.default_rng(1)
    x = world["query"][None]
    wording = rows(x + 0.3 * rng.standard_normal(D))
    nearly = rows(wording + 1e-6 * rng.standard_normal((3, D)))
    assert len(span_basis(attribute_directions(nearly))) == 0
    model = BendVLM("project").fit(images=world["reference"], groups=world["classes"])
    assert model.transform_text(x, group_queries=nearly[None]) == pytest.approx(x)


def test_a_query_that_names_the_attribute_loses_it_as_any_other(world):
    rng = np.random.default_rng(2)
    axis, subject = np.linalg.qr(rng.standard_normal((D, 2)))[0].T
    wordings = rows(np.array([subject + 0.5 * axis, subject - 0.5 * axis]))
    model = BendVLM("project").fit(images=world["reference"], groups=world["classes"])
    for explicit in wordings:
        assert model.transform_text(explicit, group_queries=wordings) == pytest.approx(subject)
