from collections import deque

import numpy as np
import pandas as pd
import pytest
import torch

from debias_utils.arrays import array, booleans, floats, is_missing, labels, numbers


def test_precision_is_kept_but_never_below_float32():
    kinds = {np.float16: np.float32, np.float32: np.float32, np.float64: np.float64, np.int8: np.float64, bool: np.float64}
    for given, wanted in kinds.items():
        assert floats("x", np.ones(3, given)).dtype == wanted
    assert numbers("x", np.ones(3, np.uint8)).dtype == np.uint8
    assert floats("x", torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    x = np.ones(3)
    assert floats("x", x) is x  # nothing is copied without need


def test_lists_of_tensors():
    rows = [torch.ones(2, requires_grad=True), torch.zeros(2).bfloat16()]
    assert array(rows).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("value", [None, np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT")])
def test_what_is_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, "", "nan", False, np.inf, (), "None"])
def test_what_is_not_missing(value):
    assert not is_missing(value)


def test_booleans_in_any_form():
    columns = [pd.Series([1, 0], dtype="Int64"), pd.Series([True, False], dtype="boolean"), torch.tensor([True, False])]
    arrays = [np.array([True, False], object), np.array([1, 0], np.uint8)]
    for given in ([1, 0], [True, False], [1.0, 0.0], *columns, *arrays):
        assert booleans("x", given).tolist() == [True, False]
    assert booleans("x", []).tolist() == []


def test_places_are_named():
    with pytest.raises(ValueError, match="x holds 2 NaN, the first at axis 0 0, axis 1 1, axis 2 0"):
        floats("x", [[[1], [np.nan]], [[np.nan], [1]]])
    with pytest.raises(ValueError, match="x holds 1 NaN, the first at person 1"):
        floats("x", [1, None], axes=["person"])
    with pytest.raises(ValueError, match="x must be finite, got 2 infinite values, the first at item 1"):
        floats("x", [1, -np.inf, np.inf])
    assert floats("x", [np.inf], finite=False).tolist() == [np.inf]


def test_labels_that_cannot_be_put_in_order():
    names, codes = labels("x", pd.Series([(1, "a"), "b", 3, (1, "a")]))
    assert [names[code] for code in codes] == [(1, "a"), "b", 3, (1, "a")]
    names, _ = labels("x", np.array(["2020-01-01"], "datetime64[ns]"))
    assert names == [np.datetime64("2020-01-01")]
    names, codes = labels("x", np.array([2**63, 0], np.uint64))
    assert [names[code] for code in codes] == [2**63, 0]
    names, codes = labels("x", np.array([-(2**63), 2**63 - 1]))
    assert [names[code] for code in codes] == [-(2**63), 2**63 - 1]
    assert labels("x", [])[0] == []


def test_masked_rows_and_entries_of_a_list():
    rows = [np.ma.masked_array([1.0, 2], mask=[0, 1]), np.ones(2)]
    assert array(rows).tolist() == [[1, None], [1, 1]]
    assert array([1.0, np.ma.masked, 3]).tolist() == [1, None, 3]
    assert array([0, torch.ones((), requires_grad=True)]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="x holds 1 NaN, the first at row 0, column 1"):
        floats("x", rows)


def test_whole_numbers_stay_whole_and_finite():
    assert numbers("x", [1, 2], finite=True).dtype.kind == "i"
    with pytest.raises(ValueError, match="x must be finite, got 1 infinite values, the first at item 1"):
        numbers("x", [1, np.inf], finite=True)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"])
def test_labels_far_apart_are_those_of_numpy_in_every_whole_type(kind):
    info = np.iinfo(kind)
    for low, high in ((info.min, info.max), (info.max // 2, info.max), (info.max - 3, info.max)):
        x = np.array([high, low, low, high] * 10 + [low], kind)
        if int(high) - int(low) < 2**16:
            x = np.tile(x, 2**11)  # more labels than numbers between them
        names, codes = labels("x", x)
        unique, expected = np.unique(x, return_inverse=True)
        assert names == unique.tolist()
        assert np.array_equal(codes, expected)


def test_labels_of_any_sequence():
    assert labels("x", deque(["b", "a", "b"]))[0] == ["a", "b"]
    with pytest.raises(ValueError, match=r"x holds 1 missing labels .* at item 1"):
        labels("x", deque(["a", np.nan, "b"]))
    with pytest.raises(ValueError, match=r"x must be words, numbers or the like, .*unhashable type: 'dict'"):
        labels("x", [{}, {"a": 1}])
