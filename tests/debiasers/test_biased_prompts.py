import numpy as np
import pytest

from debias_utils.debiasers import BiasedPrompts

D = 32


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    axes = unit(rng.standard_normal((3, D)))
    jobs = unit(rng.standard_normal((5, D)))
    person = unit(rng.standard_normal(D))
    return {
        "sets": [unit(person + axes)],
        "group_queries": unit(jobs[:, None] + 0.5 * axes + 0.05 * rng.standard_normal((5, 3, D))),
        "queries": unit(jobs),
    }


def test_it_is_the_authors_map_of_unit_embeddings(fixtures):
    official = np.load(fixtures / "projection_debias" / "projection.npz")
    pairs, query = official["candidate"][official["S"]], official["query"]
    model = BiasedPrompts().fit(sets=[official["spurious"]], group_queries=pairs)
    assert model.transform_text(query) == pytest.approx(official["disc64/query_debiased"], abs=1e-5)
    assert model.rank == 6
    plain = BiasedPrompts(variant="orthogonal").fit(sets=[official["spurious"]])
    assert plain.map_ == pytest.approx(official["disc64/P0"], abs=1e-6)
    pairs = official["gen/candidate"][official["gen/S"]]
    tokens = BiasedPrompts(variant="generative", strength=500.0).fit(group_queries=pairs)
    assert tokens.map_ == pytest.approx(official["gen/P"], abs=1e-5)
    assert tokens.rank == 0


def test_the_three_variants_differ_and_each_does_what_it_says(data):
    found = {variant: BiasedPrompts(variant=variant).fit(**data) for variant in ("orthogonal", "calibrated", "generative")}
    rows = data["group_queries"].reshape(-1, D)
    spread, along = {"none": rows}, {}
    for variant, model in found.items():
        spread[variant] = model.transform_text(rows)
        along[variant] = abs(spread[variant] @ data["sets"][0].T).max()
    gaps = {name: np.ptp(x.reshape(5, 3, D), axis=1).max() for name, x in spread.items()}
    assert gaps["calibrated"] < gaps["generative"] + 1e-3 < gaps["orthogonal"] < gaps["none"]
    assert along["orthogonal"] == pytest.approx(0, abs=1e-9)
    assert along["calibrated"] == pytest.approx(0, abs=1e-9)
    assert along["generative"] > 0.01
    assert (found["orthogonal"].rank, found["calibrated"].rank, found["generative"].rank) == (3, 3, 0)
    weak = BiasedPrompts(strength=1e-9).fit(**data)
    assert weak.transform_text(rows) == pytest.approx(spread["orthogonal"], abs=1e-6)


def test_all_pairs_of_groups_are_aligned_not_the_first_two_alone(data):
    of_two = BiasedPrompts().fit(sets=data["sets"], group_queries=data["group_queries"][:, :2])
    of_three = BiasedPrompts().fit(**data)
    pair = data["group_queries"][:, [0, 2]]
    gap = [np.linalg.norm(np.diff(m.transform_text(pair.reshape(-1, D)).reshape(5, 2, D), axis=1)) for m in (of_two, of_three)]
    assert gap[1] < 0.5 * gap[0]


def test_near_collinear_prompts_tell_their_rank(data):
    (prompts,) = data["sets"]
    rng = np.random.default_rng(1)
    near = unit(prompts[:1] + 1e-5 * rng.standard_normal((4, D)))
    model = BiasedPrompts(variant="orthogonal").fit(sets=[prompts, near])
    assert model.rank == 3
    assert model.map_ == pytest.approx(BiasedPrompts(variant="orthogonal").fit(sets=[prompts]).map_, abs=1e-4)
    assert BiasedPrompts(variant="orthogonal", tolerance=1e-9).fit(sets=[prompts, near]).rank == 7
    half = BiasedPrompts(variant="orthogonal").fit(sets=[np.repeat(prompts, 3, axis=0).astype(np.float16)])
    assert half.rank == 3


def test_bad_settings_and_data_are_refused(data, tmp_path):
    for model, given, said in (
        (BiasedPrompts(variant="both"), data, "orthogonal"),
        (BiasedPrompts(), {"sets": data["sets"]}, "needs group_queries"),
        (BiasedPrompts(variant="generative"), {"sets": data["sets"]}, "needs group_queries"),
        (BiasedPrompts(), data | {"group_queries": data["group_queries"][:, :1]}, "two classes"),
        (BiasedPrompts(), data | {"group_queries": data["group_queries"][..., :-1]}, "one width"),
        (BiasedPrompts(), data | {"sets": []}, "at least one set"),
        (BiasedPrompts(strength=-1.0), data, "strength"),
        (BiasedPrompts(variant="orthogonal"), {"sets": [np.eye(4)]}, "all 4 dimensions"),
    ):
        with pytest.raises(ValueError, match=said):
            model.fit(**given)
    again = BiasedPrompts.load(BiasedPrompts(variant="orthogonal").fit(**data).save(tmp_path / "saved"))
    assert (again.variant, again.rank) == ("orthogonal", 3)
    with pytest.raises(ValueError, match="width 32"):
        again.transform_text(np.ones((2, 16)))
