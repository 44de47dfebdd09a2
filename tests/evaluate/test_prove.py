import json
import random
import shutil

import numpy as np
import pandas as pd
import pytest

from debias_utils import load_profile
from debias_utils.evaluate import cells, grid, prove, release


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Records of other runs prove nothing here; what was drawn and embedded before may stay."""
    records = tmp_path / "records"
    monkeypatch.setattr(prove, "_path", lambda index, kind, *_: records / f"{kind}-{index['tables']['table']['file']}.json")
    return records


def cell(editor="StyleCLIP", method="Before", who=(3, 17)):
    """One released cell, and two of its people."""
    found = grid.cells(load_profile("mini", device="cpu"), "table", editors=[editor], seeds=[0])
    first = next(c for c in found if c["method"] == method)
    return {**first, "occupations": first["occupations"][:1], "who": list(who)}


def draw(monkeypatch, *chosen):
    monkeypatch.setattr(prove, "sample", lambda *_: [("table", c) for c in chosen])


@pytest.fixture
def copy(tmp_path):
    """The released tables as if this very code had computed them, which a test may damage."""
    folder = shutil.copytree(release.RESULTS, tmp_path / "results")
    rewrite(folder, lambda table: table)
    return folder


def rewrite(folder, change, **decided):
    """A release with a changed table, all of whose checksums are right."""
    index = release.read_index(folder)
    tables = {name: release.read(name, folder=folder) for name in index["tables"]}
    tables["table"] = change(tables["table"])
    release.write(tables, decided={**index["decided"], **prove.decided(load_profile("mini", device="cpu")), **decided},
                  computed=index["computed"], folder=folder)  # fmt: skip


def rows(**change):
    numbers = {name: [0.1, 0.2, 0.3] for name in cells.NUMBERS}
    labels = {name: ["a", "b", "a"] for name in prove.LABELS}
    keys = {"occupation": ["nurse"] * 3, "person": [0, 1, 2], "strength": [3.0] * 3}
    return pd.DataFrame({**keys, **numbers, **labels, **change})


def test_differences_by_hand():
    assert prove.compare(rows(), rows(), optimised=False) == 0
    assert prove.compare(rows(), rows().sample(frac=1, random_state=1), optimised=False) == 0
    one = rows(identity=[0.1, 0.2, 0.7])
    assert prove.compare(rows(), one, optimised=False) == pytest.approx(0.4)
    assert prove.compare(rows(), one, optimised=True) == 0
    most = rows(**{name: [0.1, 0.5, 0.7] for name in cells.NUMBERS})
    assert prove.compare(rows(), most, optimised=True) == pytest.approx(0.3)
    assert prove.compare(rows(), rows(gender_after=["a", "a", "a"]), optimised=False) == np.inf
    assert prove.compare(rows(), rows(gender_after=["a", "a", "a"]), optimised=True) == 0
    assert prove.compare(rows(), rows().iloc[1:], optimised=True) == np.inf
    assert prove.compare(rows(), rows(person=[0, 1, 3]), optimised=True) == np.inf
    assert not prove.compare(rows(), rows(identity=[np.nan] * 3), optimised=False) <= 1
    nowhere = {"strength": [np.nan] * 3}
    assert prove.compare(rows(**nowhere), rows(**nowhere), optimised=False) == 0


def test_the_sample_is_that_of_its_draw_and_in_time_covers_all(parts):
    def strata(count, seed):
        return {
            (sweep, c["editor"], c["method"], c["variant"], c["rho"])
            for sweep, c in prove.sample(parts, random.Random(seed), count)
        }

    assert prove.sample(parts, random.Random("a"), 5) == prove.sample(parts, random.Random("a"), 5)
    assert prove.sample(parts, random.Random("a"), 5) != prove.sample(parts, random.Random("b"), 5)
    everything = strata(None, 0)
    every = {(c["editor"], c["method"], c["variant"]) for sweep in grid.SWEEPS for c in grid.cells(parts, sweep)}
    assert {stratum[1:4] for stratum in everything} == every
    assert len(strata(prove.CELLS, 1)) == prove.CELLS
    assert set.union(*(strata(prove.CELLS, seed) for seed in range(40))) == everything


def test_drawn_people_are_those_of_the_cell(parts):
    for _, c in prove.sample(parts, random.Random(3), None):
        assert len(c["occupations"]) == 1
        assert len(set(c["who"])) == min(prove.WHO, c["people"])
        assert set(c["who"]) <= set(range(c["people"]))


def test_released_rows_are_those_of_this_code(parts, monkeypatch, copy):
    """Each editor, and the oracle, whose clothes are drawn for all of a cell's people at once."""
    draw(monkeypatch, cell(), cell(method="Oracle"), cell("InstructPix2Pix", "Text-based"))
    record = prove.ensure(parts, "rows", draw="a", folder=copy, progress=False)
    assert record["rows"] == 6
    assert record["largest"][prove.EXACT] < prove.TOLERANCE[prove.EXACT]
    monkeypatch.setattr(prove, "_prove_rows", lambda *_: pytest.fail("computed twice"))
    assert prove.ensure(parts, "rows", draw="a", folder=copy, progress=False) == record
    assert prove.ensure(parts, "rows", folder=copy, progress=False) == record
    with pytest.raises(pytest.fail.Exception, match="computed twice"):  # another build, another sample
        prove.ensure(parts, "rows", draw="b", folder=copy, progress=False)


def test_a_number_that_was_changed_is_found_though_its_checksum_is_right(parts, monkeypatch, copy, cache):
    chosen = cell()

    def change(table):
        return table.assign(gender_shift=table["gender_shift"] + 0.01 * (table["person"] == 17))

    rewrite(copy, change)
    draw(monkeypatch, chosen)
    with pytest.raises(prove.StaleError, match=r"1 of 1 cells are not .* people \[3, 17\]: 0\.01\. .*run `make tables`"):
        prove.ensure(parts, "rows", draw="a", folder=copy, progress=False)
    assert not cache.exists()


def test_where_code_has_changed_everything_is_tried_and_the_rows_stand_under_it(parts, monkeypatch, copy):
    rewrite(copy, lambda table: table, code="older")
    asked = []

    def few(parts, rng, count):
        asked.append(count)
        return [("table", cell())]

    monkeypatch.setattr(prove, "sample", few)
    record = prove.ensure(parts, "rows", folder=copy, progress=False)
    assert asked == [None]
    assert record["every"]
    stands = release.read_index(copy)["stands"]["rows"]
    assert stands == record
    assert stands["cells"] == ["table: StyleCLIP, Before, training 0, rho 0.9, plumber, people [3, 17]"]
    prove.ensure(parts, "rows", draw="next commit", count=7, folder=copy, progress=False)
    assert asked == [None, 7]  # the new code is known by now


def test_where_it_cannot_be_written_down_the_cache_knows(parts, monkeypatch, copy, capsys, cache):
    rewrite(copy, lambda table: table, weights="older")
    draw(monkeypatch, cell())
    monkeypatch.setattr(release, "_write_index", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    record = prove.ensure(parts, "rows", folder=copy, progress=False)
    assert "kept in the cache alone: read-only" in capsys.readouterr().err
    assert release.read_index(copy)["stands"] == {}
    monkeypatch.setattr(prove, "_prove_rows", lambda *_: pytest.fail("computed twice"))
    assert prove.ensure(parts, "rows", folder=copy, progress=False) == record
    monkeypatch.undo()
    monkeypatch.setattr(prove, "_path", lambda *_: next(cache.iterdir()))
    assert prove.ensure(parts, "rows", folder=copy, progress=False) == record  # and tells it where it can be written now
    assert release.read_index(copy)["stands"]["rows"] == record


def test_a_grid_with_other_cells_is_found_out(parts, monkeypatch, copy):
    monkeypatch.setitem(grid.OPTIMISER["StyleCLIP"], "steps", 21)
    with pytest.raises(prove.StaleError, match=r"the grid has other cells of 'table' now than were released; run `make tables`"):
        prove.ensure(parts, "rows", draw="a", folder=copy, progress=False)


def test_times_need_no_draw(parts, copy):
    record = prove.ensure(parts, "parts", folder=copy, progress=False)
    assert set(record["largest"]) == {"matrix product", "CLIP"}


def test_a_record_that_is_not_whole_counts_as_none(parts, monkeypatch, copy, cache):
    draw(monkeypatch, cell(method="Oracle"))
    record = prove.ensure(parts, "rows", draw="a", folder=copy, progress=False)
    (path,) = cache.iterdir()
    whole = path.read_text()
    for content in ("", "[]", '{"draw": "a"}', whole[:-9], whole.replace('"rows": 2', '"rows": 99999'), "[" * 100_000):
        path.write_text(content)
        again = prove.ensure(parts, "rows", draw="a", folder=copy, progress=False)
        assert again["largest"] == record["largest"]
        kept = json.loads(path.read_text())
        kept.pop("sha256")
        assert kept == again


def test_relevance_of_some_elements(parts, monkeypatch, copy):
    monkeypatch.setattr(random.Random, "sample", lambda self, population, k: list(population)[:k])
    record = prove.ensure(parts, "relevance", draw="a", folder=copy, progress=False)
    assert record["largest"][prove.EXACT] < prove.TOLERANCE[prove.EXACT]
    assert record["rows"] > prove.ELEMENTS


def test_a_page_says_what_was_computed_again(parts, monkeypatch, copy):
    draw(monkeypatch, cell(method="Oracle"))
    text = prove.said(parts, "rows", folder=copy)
    assert "travel with the book" in text
    assert "**2** of them, in 1 cells, were computed again. No number differs by more than" in text
    assert "were computed on this machine" in prove.said(load_profile("mini", device="cpu", seed=5), "rows", folder=copy)


def test_rows_of_the_book_are_read(parts, monkeypatch):
    monkeypatch.setattr(prove, "ensure", lambda *_, **__: {})
    found = grid.rows(parts, "table", editors=["StyleCLIP"], seeds=[0])
    assert len(found) == 6 * 40 * 14  # with the control
    assert set(found["method"]) == set(grid.METHODS["StyleCLIP"]) - {"Gradient-based, from text"}
    whole = grid.rows(parts, *grid.SWEEPS)
    assert len(whole) == sum(entry["rows"] for name, entry in release.read_index()["tables"].items() if name in grid.SWEEPS)
