import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from debias_utils import load_profile
from debias_utils.edit.relevance import channel_statistics, finite_difference
from debias_utils.evaluate import agreement
from debias_utils.toonville.elements import TRAIT_CHANNELS


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
    full = agreement.matrix(table, agreement.REGRESSION, names=names)
    assert full.shape == (14, len(names))
    row = table[table["way"] == agreement.REGRESSION].iloc[130]
    jobs = table["occupation"].unique()
    assert full[list(jobs).index(row["occupation"]), row["channel"]].item() == pytest.approx(row["relevance"])
    assert int((full != 0).any(dim=0).sum()) == table[table["way"] == agreement.REGRESSION]["copies"].sum() / 14
    assert torch.equal(full, agreement.matrix(table, agreement.REGRESSION, names=names))


def test_what_is_counted_decides_the_agreement(measured):
    parts, table = measured
    names, pair = parts.channel_names(), (agreement.GRADIENT, agreement.PUBLISHED)
    first = table[(table["way"] == agreement.GRADIENT) & (table["occupation"] == table["occupation"].iloc[0])]
    live = first["channel"].to_numpy()
    assert first["copies"].tolist() == [names.count(names[channel]) for channel in live]
    a, b = (agreement.matrix(table, way, names=names)[0].numpy() for way in pair)
    every = np.isin(names, [names[channel] for channel in live])
    items = first["copies"].to_numpy() == 1
    for over, options in ((every, {}), (live, {"each_once": True}), (live[items], {"of": items})):
        assert agreement.spearman(table, *pair, **options)[0] == pytest.approx(spearmanr(a[over], b[over]).statistic)


def test_as_many_channels_as_packaged_give_what_was_measured_on_the_packaged(measured):
    _, table = measured
    many = max(agreement.COPIES)
    assert many == table["copies"].max() == TRAIT_CHANNELS
    for way in (agreement.GRADIENT, agreement.PROBES, agreement.ONE, agreement.PUBLISHED):
        a, b = (table[table["way"] == w]["relevance"].to_numpy() for w in (way, agreement.shared(way, many)))
        assert np.allclose(a, b, atol=1e-3 * np.abs(a).max()), way


def test_equal_channels_have_the_same_relevance(measured):
    parts, _ = measured
    names, styles = parts.channel_names(), parts.sample_styles(64, seed=1)
    statistics, encode = channel_statistics(styles), parts.clip().encode_image
    some = torch.zeros(len(names), dtype=torch.bool)
    first = names.index("glasses")
    some[[first, first + 1]] = True
    for options in ({}, {"step": 1, "around": "sample", "normalize": False}):
        moved = finite_difference(parts.generator, encode, styles[:2], statistics, channels=some, **options)
        assert torch.allclose(moved[first], moved[first + 1], atol=1e-3 * float(moved[first].abs().max()))
        assert moved[first].norm() > 0


def test_gradients_agree_with_the_published_differences_where_channels_share_the_work(measured):
    parts, table = measured

    def median(way, other, copies, items=False):
        return np.median(agreement.spearman(table, *(agreement.shared(w, copies, items=items) for w in (way, other))))

    small, large = (agreement.GRADIENT, agreement.ONE), (agreement.PROBES, agreement.PUBLISHED)
    many = max(agreement.COPIES)
    assert median(*small, 8, items=True) > 0.97
    assert median(*large, 1) < 0.6 < 0.8 < median(*large, 8, items=True)  # two pictures; with 32 it is 0.64 and 0.96
    assert median(*small, 1) < 0.9 < 0.95 < median(*small, many)
    assert median(*large, many) > 0.85
    found = [
        agreement.own_elements(table, agreement.shared(agreement.PUBLISHED, many, items=items), parts.channel_names())
        for items in (False, True)
    ]
    assert found[0] > 2 > found[1]
