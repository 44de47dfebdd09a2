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


def test_sharing_a_channels_work_draws_the_same_pictures_and_a_copy_moves_its_part():
    parts = load_profile("mini", device="cpu")
    generator = parts.generator
    finer, first = agreement.share_work(generator, 4), generator.style_sizes[0]
    assert finer.style_sizes == [4 * first, *generator.style_sizes[1:]]
    assert generator.style_sizes[0] == first  # a copy was changed
    styles = generator.split(parts.sample_styles(3, seed=1))

    def draw(moved):
        return finer.synthesis([styles[0].repeat_interleave(4, dim=1) + moved, *styles[1:]])

    with torch.no_grad():
        before = generator.synthesis(styles)
        assert torch.allclose(draw(0), before, atol=1e-4)
        step = torch.zeros(4 * first)
        step[4 * 7] = 1e-2  # one of four
        whole = [styles[0] + step[::4] / 4, *styles[1:]]
        assert torch.allclose(draw(step) - before, generator.synthesis(whole) - before, atol=2e-4)
        assert (draw(step) - before).abs().max() > 1e-3


def test_gradients_agree_with_the_published_differences_where_channels_share_the_work(measured):
    _, table = measured
    small, published = (
        [np.median(agreement.spearman(table, *(agreement.shared(way, k) for way in pair))) for k in (1, *agreement.COPIES)]
        for pair in ((agreement.GRADIENT, agreement.ONE), (agreement.PROBES, agreement.PUBLISHED))
    )
    eight = (1, *agreement.COPIES).index(8)
    assert small[eight] > 0.97
    assert published[0] < 0.6 < 0.8 < published[eight]  # two pictures; with 32 it is 0.64 and 0.96
