import numpy as np
import pytest
import torch

from debias_utils import load_profile
from debias_utils.evaluate import agreement


@pytest.fixture(scope="module")
def measured():
    parts = load_profile("mini", device="cpu")
    return parts, agreement.compute(parts, pictures=2, many=16, progress=False)


def test_every_way_ranks_the_live_channels_for_every_text(measured):
    _, table = measured
    live = table["channel"].nunique()
    sizes = table.groupby("way").size()
    assert sizes.pop(agreement.ONE_TEXT) == live
    assert (sizes == 14 * live).all()
    assert (table.groupby("way")["seconds"].nunique() == 1).all()
    assert not table.duplicated(["way", "occupation", "channel"]).any()


def test_agreement_of_a_way_with_itself_and_with_others(measured):
    _, table = measured
    assert np.allclose(agreement.spearman(table, agreement.FIVE, agreement.FIVE), 1)
    small = np.median(agreement.spearman(table, agreement.GRADIENT, agreement.ONE))
    large = np.median(agreement.spearman(table, agreement.GRADIENT, agreement.SWITCH))
    assert small > 0.6  # two pictures; with 32 about 0.93
    assert small > large


def test_finite_steps_and_regression_find_an_occupations_elements_where_gradients_do_not(measured):
    parts, table = measured
    found = {way: agreement.own_elements(table, way, parts.channel_names()) for way in table["way"].unique()}
    assert min(found[agreement.SWITCH], found[agreement.REGRESSION]) > 2.5
    assert found[agreement.GRADIENT] < 2


def test_the_matrix_is_what_was_measured(measured):
    parts, table = measured
    names = parts.channel_names()
    full = agreement.matrix(table, agreement.REGRESSION, channels=len(names))
    assert full.shape == (14, len(names))
    row = table[table["way"] == agreement.REGRESSION].iloc[130]
    jobs = table["occupation"].unique()
    assert full[list(jobs).index(row["occupation"]), row["channel"]].item() == pytest.approx(row["relevance"])
    assert int((full != 0).any(dim=0).sum()) == table["channel"].nunique()
    assert torch.equal(full, agreement.matrix(table, agreement.REGRESSION, channels=len(names)))
