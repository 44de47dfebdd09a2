import numpy as np
import pytest

from debias_utils.debias import insight_map
from debias_utils.debiasers import RoboShot


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def official(fixtures):
    return np.load(fixtures / "roboshot" / "roboshot.npz")


def test_it_is_the_codes_map_of_unit_texts(official):
    reject, accept, x = official["reject_emb_all"], official["accept_emb_all"], official["test_X"]
    model = RoboShot().fit(sets=list(reject), helpful_sets=list(accept))
    steps = unit(x)
    for pairs, sign in ((reject, -1), (accept, 1)):  # the code, step by step, on unit texts
        for q in np.linalg.qr((unit(pairs[:, 0]) - unit(pairs[:, 1])).T)[0].T:
            steps = unit(steps + sign * (steps @ q)[:, None] * q)
    assert model.transform_image(x) == pytest.approx(steps)
    raw = unit(x @ insight_map(reject, accept).T)  # the release's texts are not unit: other directions
    assert raw == pytest.approx(official["full_rank/both/test_proj"], abs=1e-6)
    assert 1e-3 < abs(raw - model.transform_image(x)).max() < 0.5


def test_pictures_lose_the_sets_and_texts_stay(official):
    reject, x = official["reject_emb_all"], official["test_X"]
    model = RoboShot().fit(sets=reject)
    assert model.rank == 3
    directions = unit(reject[:, 0]) - unit(reject[:, 1])
    assert model.transform_image(x) @ directions.T == pytest.approx(np.zeros((len(x), 3)), abs=1e-9)
    assert model.transform_text(x) == pytest.approx(unit(x))
    again = model.transform_image(model.transform_image(x))
    assert again == pytest.approx(model.transform_image(x))


def test_the_paper_and_the_code(official, tmp_path):
    data = {"sets": official["reject_emb_all"], "helpful_sets": official["accept_emb_all"]}
    printed, coded = RoboShot(sequence=True).fit(**data), RoboShot().fit(**data)
    x = official["test_X"]
    assert 0.01 < abs(printed.transform_image(x) - coded.transform_image(x)).max() < 0.5
    assert RoboShot.load(printed.save(tmp_path / "saved")).sequence
    assert (printed.rank, coded.rank) == (1, 3)
    backwards = RoboShot(sequence=True).fit(sets=data["sets"][::-1])
    assert abs(backwards.transform_image(x) - RoboShot(sequence=True).fit(sets=data["sets"]).transform_image(x)).max() > 0.01
    assert RoboShot().fit(sets=data["sets"][::-1]).map_ == pytest.approx(RoboShot().fit(sets=data["sets"]).map_)


def test_dependent_sets_tell_their_rank(official):
    pairs = official["rank_deficient/reject_emb_all"]
    assert RoboShot().fit(sets=unit(pairs)).rank == 3
    assert RoboShot().fit(sets=unit(pairs).astype(np.float32)).rank == 3


def test_bad_sets_are_refused(official):
    pairs = official["reject_emb_all"]
    for given, said in (
        ({"sets": [pairs[0], pairs[0][:1]]}, "at least 2 texts"),
        ({"sets": [pairs[0][[0, 0]]]}, "same embedding"),
        ({"sets": []}, "at least one"),
        ({"sets": pairs, "helpful_sets": pairs[..., :-1]}, "one width"),
        ({"helpful_sets": pairs}, "needs sets"),
    ):
        with pytest.raises(ValueError, match=said):
            RoboShot().fit(**given)
