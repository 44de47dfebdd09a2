import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils.debias.subspace import BiasSubspace
from debias_utils.edit.relevance import regression
from debias_utils.edit.styleclip import direction, text_delta
from debias_utils.tensors import floats, numbers_of

MASKED = np.ma.masked_array([1.0, 99, 0], mask=[0, 1, 0])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_precision_is_kept_and_arrays_are_copied(dtype):
    x = np.array([1.5, np.nan, -2], dtype)
    found = floats("x", x)
    assert found.numpy().dtype == np.dtype(dtype).newbyteorder("=")
    x[0] = 7
    assert found[0] == 1.5
    assert numbers_of("x", [torch.ones(2), torch.zeros(2)]).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    "given",
    [[1, None, 2], MASKED, pd.Series([1, None, 2], dtype="Int64"), [1.0, np.ma.masked, 2], np.array([1, pd.NA, 2], object)],
)
def test_what_is_missing_is_nan(given):
    assert floats("x", given).isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"target holds 1 NaN or infinite values of 3; .* at \[1\]"):
        text_delta(given, np.zeros(3))
    with pytest.raises(ValueError, match=r"neutral holds 1 NaN"):
        text_delta(np.ones(3), given)
    with pytest.raises(ValueError, match=r"relevance holds 1 NaN .* at \[1\]"):
        direction(given, np.ones(3), beta=0.1)


def test_tables_with_holes_say_where():
    with pytest.raises(ValueError, match=r"set 0 holds 1 NaN .* of 4; .* at \[0, 1\]"):
        BiasSubspace.fit([[[1.0, None], [3, 4]]], n_components=1)
    with pytest.raises(ValueError, match=r"styles hold 1 NaN .* of 4; .* at \[0, 0\]"):
        regression([[None, 1], [2, 3]], np.ones((2, 3)), np.ones((1, 3)))


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([None] * 3, "channels hold 3 NaN, the first at item 0"),
        ([True, None, False], "channels hold 1 NaN, the first at item 1"),
        ([True, np.nan, False], "channels hold 1 NaN, the first at item 1"),
        (np.ma.masked_array([True, True, False], mask=[0, 0, 1]), "channels hold 1 NaN, the first at item 2"),
        (["yes", "no", "no"], r"channels must be \(S,\) bool"),
        ([0, 1, 1], r"channels must be \(S,\) bool with S = 3, got \(3,\) int64"),
    ],
)
def test_channels_that_are_no_mask(channels, message):
    with pytest.raises(ValueError, match=message):
        direction([0.5, 0.2, 0.1], np.ones(3), beta=0.1, channels=channels)


def test_channels_in_any_form():
    wanted = direction([0.5, 0.2, 0.1], np.ones(3), beta=0.1, channels=np.array([False, True, True])).tolist()
    assert wanted == pytest.approx([0, 1, 0.5])
    for channels in (
        [False, True, True],
        torch.tensor([False, True, True]),
        pd.Series([False, True, True], dtype="boolean"),
        np.array([False, True, True], object),
    ):
        assert direction([0.5, 0.2, 0.1], np.ones(3), beta=0.1, channels=channels).tolist() == wanted
