import numpy as np
import pandas as pd
import pytest

from debias_utils import load_profile
from debias_utils.evaluate import __main__ as command
from debias_utils.evaluate import instruct_table, table
from debias_utils.evaluate.study import ALPHA
from debias_utils.toonville import OCCUPATIONS


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.fixture(scope="module")
def computed(parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ALPHAS", (ALPHA,))
        return table.compute(parts, rho=0.9, training_seed=1, people=2, progress=False)


def test_a_row_for_every_method_occupation_and_person(computed):
    assert set(computed["method"]) == {*table.METHODS, *table.REMOVED}
    assert (computed.groupby("method").size() == 2 * len(OCCUPATIONS)).all()
    assert not computed.duplicated(["method", "occupation", "person"]).any()
    assert (computed["training"] == 1).all()
    assert computed["alpha"].isna().equals(computed["method"] == table.ORACLE)
    assert (computed["gender_flip"] == (computed["gender_before"] != computed["gender_after"])).all()


def test_the_oracle_shows_every_occupation_and_the_cures_less_of_the_stereotype(computed):
    by = computed.groupby("method")[["occupation_score", "gender_shift", "identity"]].mean()
    assert by.loc[table.ORACLE, "occupation_score"] > 0.95
    assert by.loc[table.BEFORE, "occupation_score"] > 0.45
    for cure in (table.TEXT, table.GRADIENT, table.GRADIENT_TEXT):
        assert by.loc[cure, "gender_shift"] < by.loc[table.BEFORE, "gender_shift"]
    assert by.loc[table.GRADIENT, "identity"] > by.loc[table.BEFORE, "identity"]


def test_the_control_has_nothing_to_take_out(parts, monkeypatch):
    monkeypatch.setattr(table, "ALPHAS", (1.0, ALPHA))
    rows = table.compute(parts, rho=0.0, training_seed=0, people=2, progress=False)
    assert set(rows["method"]) == {table.BEFORE, table.ORACLE}
    assert set(rows["alpha"].dropna()) == {1.0, ALPHA}


def test_rows_are_computed_once_and_again_only_if_something_decided_otherwise(parts, computed, monkeypatch):
    calls = []

    def compute(parts, **options):
        calls.append(options["training_seed"])
        return computed

    monkeypatch.setattr(table, "compute", compute)
    first, second = (table.rows(parts, training_seed=1, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, computed)
    table.rows(parts, training_seed=2, progress=False)
    assert calls == [1, 2]
    path = table.path_of(parts, "edits-rho0.9-training1", table.SETTINGS)
    assert path != table.path_of(parts, "edits-rho0.9-training1", {**table.SETTINGS, "steps": 21})
    path.write_bytes(path.read_bytes()[:100])  # cut short
    pd.testing.assert_frame_equal(table.rows(parts, training_seed=1, progress=False), computed)
    assert calls == [1, 2, 1]


def test_means_of_a_person_are_over_the_occupations(computed):
    means = table.summary(computed, ["gender_shift"])
    block = computed[(computed["method"] == table.TEXT) & (computed["person"] == 1)]
    assert means.loc[(table.TEXT, 1, 1), "gender_shift"] == pytest.approx(block["gender_shift"].mean())
    assert len(means) == 2 * computed["method"].nunique()
    with pytest.raises(ValueError, match="unknown measure 'height'"):
        table.summary(computed, ["height"])


def test_the_command_computes_what_the_chapters_read(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(table, "rows", lambda parts, **options: asked.append(tuple(options.values())) or np.zeros(3))
    monkeypatch.setattr(instruct_table, "rows", lambda parts, **options: asked.append(options) or np.zeros(2))
    monkeypatch.setattr(command.agreement, "relevances", lambda parts: asked.append("relevances"))
    command.main(["--trainings", "0", "2"])
    assert asked == [(0.9, 0), (0.9, 2), (0.0, 0), (0.0, 2), {"rho": 0.0}, {"rho": 0.9}, "relevances"]
    assert "rho 0.9, training 2: 3 edits" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--profile", "huge"])
    assert "'mini'" in capsys.readouterr().err
