import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils.evaluate.judge import flips, judge, read

CLASSES = {
    "gender": ["feminine", "masculine"],
    "skin": ["lighter", "darker"],
    "age": ["young", "older"],
    "occupation": ["nurse", "pilot"],
}


class Judge:
    """Reads gender, skin, age and occupation off the four pixels of the red channel."""

    def __init__(self):
        self.classes = CLASSES

    def __call__(self, images):
        quarters = torch.stack([images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 1, 0], images[:, 0, 1, 1]], dim=1)
        return {name: torch.stack([1 - q, q], dim=1) for name, q in zip(self.classes, quarters.T, strict=True)}


def pictures(values):
    """(..., 4) -> (..., 3, 2, 2)"""
    return torch.tensor(values).unflatten(-1, (1, 2, 2)).expand(*np.shape(values)[:-1], 3, 2, 2)


def test_one_row_for_each_edit():
    originals = pictures([[0.1, 0.2, 0.9, 0.5], [0.8, 0.2, 0.9, 0.5]])
    edited = pictures([[[0.1, 0.2, 0.9, 0.1], [0.3, 0.2, 0.9, 0.0]], [[0.6, 0.2, 0.4, 0.9], [0.8, 0.7, 0.9, 0.7]]])
    rows = judge(originals, edited, ["nurse", "pilot"], attributes=Judge(), batch_size=3)
    assert rows["occupation"].tolist() == ["nurse", "nurse", "pilot", "pilot"]
    assert rows["person"].tolist() == [0, 1, 0, 1]
    assert np.allclose(rows["occupation_score"], [0.9, 1.0, 0.9, 0.7])
    assert np.allclose(rows["gender_shift"], 2**0.5 * np.array([0, 0.5, 0.5, 0]), atol=1e-6)
    assert rows["gender_flip"].tolist() == [False, True, True, False]
    assert rows["skin_flip"].tolist() == [False, False, False, True]
    assert rows["age_after"].tolist() == ["older", "older", "young", "older"]


def test_the_original_itself_has_no_shift():
    originals = torch.rand(5, 3, 2, 2)
    rows = judge(originals, originals[None], ["nurse"], attributes=Judge(), identity=lambda x: torch.ones(len(x), 4) / 2)
    assert rows[["gender_shift", "skin_shift", "age_shift"]].to_numpy().max() == 0
    assert np.allclose(rows["identity"], 1)
    assert not rows["age_flip"].any()


def test_likeness_and_clip_score_are_paired_with_the_right_original_and_text():
    class Texts:
        def encode_prompts(self, names):
            return torch.tensor([[1.0, 0.0], [0.0, 1.0]])

        def encode_image(self, images):
            return images[:, 0, 0]  # its first two pixels

    originals, edited = torch.rand(3, 3, 2, 2), torch.rand(2, 3, 3, 2, 2)

    def distance(a, b):
        return (a - b).abs().mean(dim=(1, 2, 3))

    options = {"attributes": Judge(), "perceptual": distance, "clip": Texts(), "identity": lambda x: x.flatten(1)}
    rows = judge(originals, edited, ["nurse", "pilot"], **options, batch_size=4)
    for _, row in rows.reset_index().iterrows():
        job, person = divmod(row["index"], 3)
        after = edited[job, person]
        assert row["perceptual"] == pytest.approx(float((after - originals[person]).abs().mean()), abs=1e-6)
        assert row["clip_score"] == pytest.approx(float(after[0, 0, job]))
        assert row["identity"] == pytest.approx(float((after * originals[person]).sum()), abs=1e-5)


def test_flips_are_told_apart_by_their_way():
    rows = pd.DataFrame(
        {
            "occupation": ["nurse", "nurse", "plumber", "plumber", "plumber"],
            "gender_before": ["masculine", "feminine", "masculine", "feminine", "feminine"],
            "gender_flip": [True, False, True, True, False],
        }
    )
    assert flips(rows) == (2 / 3, 1 / 2)  # towards: the first and one of two feminine plumbers; away: one of two who fit


@pytest.mark.parametrize(
    ("edited", "occupations", "message"),
    [
        (torch.zeros(1, 3, 3, 2, 2), ["nurse"], "need originals"),
        (torch.zeros(1, 2, 3, 2, 2), ["nurse", "pilot"], "need originals"),
        (torch.zeros(1, 2, 3, 2, 2), ["plumber"], "unknown occupation 'plumber'"),
    ],
)
def test_bad_input(edited, occupations, message):
    with pytest.raises(ValueError, match=message):
        judge(torch.zeros(2, 3, 2, 2), edited, occupations, attributes=Judge())


class Odd(Judge):
    """Answers in other units, or none."""

    def __init__(self, name, change):
        super().__init__()
        self.name, self.change = name, change

    def __call__(self, images):
        return {name: self.change(p) if name == self.name else p for name, p in super().__call__(images).items()}


@pytest.mark.parametrize("name", ["gender", "skin", "age", "occupation"])
@pytest.mark.parametrize("change", [lambda p: 100 * p, lambda p: p.logit(), lambda p: p * float("nan"), lambda p: p / 2])
def test_a_judge_whose_answers_are_no_probabilities_is_refused(name, change):
    originals = pictures([[0.1, 0.2, 0.9, 0.4]])
    with pytest.raises(ValueError, match=f"the judge's answers about {name} must be probabilities"):
        judge(originals, originals[None], ["nurse"], attributes=Odd(name, change))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_judge_of_any_precision(kind):
    originals = pictures([[0.125, 0.25, 0.75, 0.5]]).to(kind)
    assert read(Judge(), originals)["skin"].tolist() == [[0.75, 0.25]]
    assert judge(originals, originals[None], ["nurse"], attributes=Judge())["occupation_score"].tolist() == [0.5]


ROWS = {"occupation": ["nurse", "plumber"], "gender_before": ["masculine", "feminine"], "gender_flip": [True, False]}


@pytest.mark.parametrize("kind", ["object", "string", "category"])
def test_flips_of_columns_of_any_type(kind):
    rows = pd.DataFrame(ROWS).astype({"occupation": kind, "gender_before": kind, "gender_flip": "boolean"})
    assert flips(rows)[0] == 0.5
    assert np.isnan(flips(rows)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gender_before": ["masculine", None]}, "gender_before holds 1 missing labels .*item 1"),
        ({"occupation": [np.nan, "nurse"]}, "occupation holds 1 missing labels .*item 0"),
        ({"gender_flip": [True, None]}, "gender_flip holds 1 NaN, the first at item 1"),
        ({"gender_flip": [1.0, np.nan]}, "gender_flip holds 1 NaN, the first at item 1"),
        ({"occupation": ["nurse", "wizard"]}, "unknown occupation 'wizard'; choose one of: "),
        ({"gender_before": ["masculine", "female"]}, "unknown gender 'female'; choose one of: 'feminine', 'masculine'"),
    ],
)
def test_flips_refuse_what_they_cannot_count(change, message):
    with pytest.raises(ValueError, match=message):
        flips(pd.DataFrame({**ROWS, **change}))
