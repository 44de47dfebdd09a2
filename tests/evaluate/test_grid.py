import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sweep_cells import TOKEN

from debias_utils import load_profile
from debias_utils.evaluate import __main__ as command
from debias_utils.evaluate import cells, grid
from debias_utils.evaluate.names import (
    BEFORE,
    EDITORS,
    GRADIENT,
    GRADIENT_TEXT,
    INSTRUCT,
    ORACLE,
    STYLECLIP,
    TEXT,
)
from debias_utils.evaluate.provenance import NO_ROW, code_hash, description
from debias_utils.evaluate.study import BETAS
from debias_utils.toonville.occupations import OCCUPATIONS

FEW = {STYLECLIP: {"betas": BETAS, "steps": 3}, INSTRUCT: {"betas": BETAS, "steps": 2, "lr": 0.3}}
SOME = {"occupations": ["nurse", "plumber"], "people": 2, "seeds": [1]}


@pytest.fixture(scope="module")
def parts():
    return load_profile("mini", device="cpu")


@pytest.fixture
def few_steps(monkeypatch):
    """The optimisation is tested elsewhere; here it only has to be asked for."""
    monkeypatch.setattr(grid, "OPTIMISER", FEW)


@pytest.fixture(scope="module")
def computed(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "OPTIMISER", FEW)
        return grid.rows(parts, "table", folder=folder, progress=False, **SOME)


def test_cells_cover_every_edit_of_the_table_once(parts):
    found = grid.cells(parts, "table")
    edits = pd.DataFrame(
        [
            (c["editor"], c["rho"], c["seed"], c["method"], s, job, person)
            for c in found
            for s in c["strengths"]
            for job in c["occupations"]
            for person in range(c["people"])
        ]
    )
    assert not edits.duplicated().any()
    counts = edits.groupby([0, 1, 3]).size()
    assert (counts == 3 * 14 * 40).all()
    assert set(counts[STYLECLIP, 0.9].index) == {BEFORE, TEXT, GRADIENT, "Orthogonal", ORACLE}
    assert set(counts[INSTRUCT, 0.9].index) == {BEFORE, TEXT, GRADIENT, ORACLE}
    assert set(counts[STYLECLIP, 0.0].index) == set(counts[INSTRUCT, 0.0].index) == {BEFORE}


@pytest.mark.parametrize("sweep", grid.SWEEPS)
def test_cells_are_plain_differ_and_are_no_larger_than_asked(parts, sweep):
    found = grid.cells(parts, sweep, chunk=100)
    texts = [json.dumps(cell, sort_keys=True) for cell in found]
    assert len(set(texts)) == len(texts)
    assert [json.loads(text) for text in texts] == found
    for cell in found:
        size = cell["people"] * len(cell["strengths"])
        assert size * len(cell["occupations"]) <= max(100, size)
        assert cell["people"] <= cell["of"] == 40


def test_the_chunk_changes_the_cells_and_not_the_edits(parts):
    def edits(**options):
        return sorted(
            (c["editor"], c["seed"], c["rho"], c["method"], c["variant"], job)
            for c in grid.cells(parts, "ablations", **options)
            for job in c["occupations"]
        )

    assert edits(chunk=1) == edits(chunk=10_000)
    assert len(grid.cells(parts, "ablations", chunk=1)) > 3 * len(grid.cells(parts, "ablations", chunk=10_000))


def test_curves_and_ablations_do_not_repeat_the_table(parts):
    seen = set()
    for sweep in grid.SWEEPS:
        for c in grid.cells(parts, sweep):
            for s in c["strengths"]:
                for job in c["occupations"]:
                    key = (c["editor"], c["seed"], c["rho"], c["method"], c["variant"], s, job, json.dumps(c["options"]))
                    assert key not in seen
                    seen.add(key)


def test_a_row_for_every_edit(computed):
    index = ["editor", "rho", "seed", "method", "occupation", "person"]
    assert not computed.duplicated(index).any()
    assert (computed.groupby(["editor", "rho", "method"]).size() == 4).all()
    assert set(computed["editor"]) == set(EDITORS)
    assert (computed["seed"] == 1).all()
    assert (computed["variant"] == "").all()
    assert computed["strength"].isna().equals(computed["method"] == ORACLE)
    strengths = computed.dropna(subset="strength").groupby("editor")["strength"].unique()
    assert strengths.map(list).to_dict() == {STYLECLIP: [3.0], INSTRUCT: [7.5]}
    assert (computed["gender_flip"] == (computed["gender_before"] != computed["gender_after"])).all()


def test_every_row_says_where_it_comes_from(parts, computed):
    assert (computed["weights"] == description(parts)["weights"]).all()
    assert (computed[["profile", "base_seed"]] == ["mini", 0]).all(axis=None)
    by = computed.groupby(["editor", "method"])["options"].first()
    assert json.loads(by[INSTRUCT, GRADIENT]) == {"image_scale": 1.5, "sampler_steps": 10, **FEW[INSTRUCT]}
    assert json.loads(by[STYLECLIP, TEXT])["attributes"] == ["gender", "skin"]
    assert json.loads(by[STYLECLIP, TEXT])["relevance"] == "regression"
    assert (by[:, ORACLE] == "{}").all()
    assert (computed["device"] == "cpu").all()
    assert (computed["code"] == code_hash()).all()
    assert (computed["threads"] >= 1).all()
    assert {"torch", "diffusers"} <= json.loads(computed["libraries"].iloc[0]).keys()


def test_rows_of_another_grid_are_refused_with_the_difference_named(parts, computed, tmp_path, few_steps):
    which = {"occupations": ["nurse"], "seeds": [1], "editors": [STYLECLIP], "folder": tmp_path, "progress": False}
    grid.rows(parts, "table", people=1, **which)
    with pytest.raises(ValueError, match=r"computed otherwise \(people: 1 there, 2 here\); choose another folder"):
        grid.rows(parts, "table", people=2, **which)
    with pytest.raises(ValueError, match=r"\(chunk: 120 there, 7 here\)"):
        grid.rows(parts, "table", people=1, chunk=7, **which)
    with pytest.raises(ValueError, match=r"\(seed: 0 there, 5 here\)"):
        grid.rows(load_profile("mini", device="cpu", seed=5), "table", people=1, **which)


def test_the_oracle_shows_the_occupation_and_methods_differ(computed):
    biased = computed[computed["rho"] == 0.9]
    by = biased.groupby(["editor", "method"])[["occupation_score", "gender_shift"]].mean()
    assert by.loc[(slice(None), ORACLE), "occupation_score"].min() > 0.95
    for editor in EDITORS:
        shifts = biased[biased["editor"] == editor].groupby("method")["skin_shift"].apply(tuple)
        assert shifts.nunique() == len(shifts)


def test_cures_leave_less_of_the_stereotype_and_more_of_the_person(parts, tmp_path):
    which = {"editors": [STYLECLIP], "people": 2, "seeds": [1]}
    (start,) = [cell for cell in grid.cells(parts, "ablations", **which) if cell["method"] == GRADIENT_TEXT]
    from_text = cells.compute(start, profile="mini", base_seed=0, device="cpu")
    found = pd.concat([grid.rows(parts, "table", folder=tmp_path, progress=False, **which), from_text])
    by = found[found["rho"] > 0].groupby("method")[["occupation_score", "gender_shift", "identity"]].mean()
    assert by.loc[ORACLE, "occupation_score"] > 0.95
    assert by.loc[BEFORE, "occupation_score"] > 0.45
    for cure in (TEXT, GRADIENT, GRADIENT_TEXT):
        assert by.loc[cure, "gender_shift"] < by.loc[BEFORE, "gender_shift"]
    assert by.loc[GRADIENT, "identity"] > by.loc[BEFORE, "identity"]


def test_rows_are_the_study_s_own(parts, computed):
    from debias_utils.evaluate.study import StyleClipStudy

    study = StyleClipStudy(parts, training_seed=1, people=2)
    own = study.judge(study.edit(study.deltas)).query("occupation == 'nurse'")
    kept = computed.query("editor == 'StyleCLIP' and rho == 0.9 and method == 'Before' and occupation == 'nurse'")
    np.testing.assert_allclose(own["gender_shift"], kept["gender_shift"], atol=1e-5)


def test_chunks_give_the_same_rows(parts, computed, few_steps, tmp_path):
    one = grid.rows(parts, "table", folder=tmp_path, chunk=2, progress=False, **SOME)
    index = ["editor", "rho", "method", "occupation", "person"]
    left, right = (t.set_index(index).sort_index() for t in (one, computed))
    editor, method = (left.index.get_level_values(name) for name in ("editor", "method"))
    optimised = (editor == STYLECLIP) & (method == GRADIENT)
    for column in ("gender_shift", "skin_shift", "age_shift", "occupation_score", "identity"):
        np.testing.assert_allclose(left[column][~optimised], right[column][~optimised], atol=1e-5, err_msg=column)
        # Adam divides a gradient by its own size: where it is nearly 0, the rounding of another batch size shows
        np.testing.assert_allclose(left[column][optimised], right[column][optimised], atol=1e-3, err_msg=column)


def test_repetitions_that_do_not_begin_with_the_first(parts):
    for sweep in grid.SWEEPS:
        one, other = ([{**cell, "seed": None} for cell in grid.cells(parts, sweep, seeds=seeds)] for seeds in ([0, 1], [2, 1]))
        assert one == other


def test_a_worker_of_another_version_computes_nothing(parts):
    (cell, *_) = grid.cells(parts, "table", people=1)
    how = {"profile": "mini", "base_seed": 0, "device": "cpu"}
    with pytest.raises(RuntimeError, match=r"^the code of debias_utils: \w+ on this worker, abc where it was asked for$"):
        cells.compute(cell, **how, code="abc")
    with pytest.raises(RuntimeError, match=r"the weights of debias_utils: \w+ on this worker, abc"):
        cells.compute(cell, **how, weights="abc")


def test_code_that_is_said_to_change_no_row_is_not_even_loaded():
    program = "import sys; import debias_utils.evaluate.cells; print(*(m for m in sys.modules if m.startswith('debias_utils.')))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = [name.removeprefix("debias_utils.").replace(".", "/") + ".py" for name in run.stdout.split()]
    assert "evaluate/study.py" in loaded
    named = [name for name in loaded if name.startswith(NO_ROW) and "toonville/train" not in name]  # profiles asks for names
    assert not named


def test_code_and_drawings_are_part_of_what_decides(tmp_path):
    (tmp_path / "toonville" / "props").mkdir(parents=True)
    (tmp_path / "evaluate").mkdir()
    prop, code, view = (tmp_path / n for n in ("toonville/props/a.svg", "evaluate/study.py", "evaluate/table.py"))
    hashes = []
    for path, text in (
        (prop, "<svg/>"),
        (code, "x = 1"),
        (view, "y = 1"),
        (prop, "<svg></svg>"),
        (code, "x = 2"),
        (view, "y = 2"),
    ):
        path.write_text(text)
        hashes.append(code_hash.__wrapped__(tmp_path))
    assert hashes[1] == hashes[2]  # a view changes nothing
    assert len(set(hashes)) == 4
    assert hashes[4] == hashes[5]


def test_variants_set_what_they_name(parts, few_steps, tmp_path):
    which = {"occupations": ["nurse"], "people": 1, "seeds": [0]}
    found = grid.rows(parts, "ablations", folder=tmp_path, progress=False, editors=[STYLECLIP], **which)
    text = found[found["method"] == TEXT].set_index("variant")["gender_shift"]
    assert {"gender", "skin", "gender, skin and age", "K = 1", "98 % of variance", "target alone"} == set(text.index)
    assert text.nunique() > 3
    gradient = found[found["method"] == GRADIENT].set_index("variant")
    assert grid.PAPERS_STEPS in gradient.index
    assert {"clip", "identity", "perceptual", "clip + identity", "clip + perceptual", "identity + perceptual"} < set(
        gradient.index
    )
    assert (gradient.loc["identity", "identity"] > gradient.loc["clip", "identity"]).all()
    assert GRADIENT_TEXT in set(found["method"])
    channels = found[found["variant"].str.contains("channels")].set_index("method")["variant"].to_dict()
    assert channels == {BEFORE: "600 channels", "Orthogonal": "120 channels"}


def test_an_instruction_s_curve_has_all_strengths(parts, few_steps, tmp_path):
    which = {"occupations": ["nurse"], "people": 1, "seeds": [0], "editors": [INSTRUCT]}
    found = grid.rows(parts, "curves", folder=tmp_path, progress=False, **which)
    by = found.groupby("method")["strength"].unique().map(sorted).to_dict()
    assert by == {
        BEFORE: [1.0, 3.0, 10.0],
        TEXT: [1.0, 3.0, 10.0],
        GRADIENT: [1.0, 3.0, 10.0],
        GRADIENT_TEXT: [1.0, 3.0, 7.5, 10.0],
    }


def test_what_decides_the_rows(parts):
    here = description(parts)
    assert here == description(load_profile("mini", device="cpu"))
    assert here != description(load_profile("mini", device="cpu", seed=1))
    assert grid.folder_of(parts) != grid.folder_of(load_profile("mini", device="cpu", seed=1))
    assert grid.folder_of(parts) != grid.folder_of(parts, people=8)
    json.dumps(here)


def test_two_ray_workers_give_the_same_rows_bit_for_bit(parts, few_steps, tmp_path, monkeypatch):
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)  # or Ray would leave one in the user's home
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    which = {"people": 2, "seeds": [1], "occupations": ["nurse"], "chunk": 2}
    apart = grid.rows(parts, "table", folder=tmp_path / "ray", engine="ray", workers=2, progress=False, **which)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers
    try:
        here = grid.rows(parts, "table", folder=tmp_path / "here", progress=False, **which)
    finally:
        torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(apart, here, check_exact=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweep": "tables"}, "unknown sweep 'tables'; choose one of: 'table', 'curves', 'ablations'"),
        ({"editors": ["StyleGAN"]}, "unknown editor 'StyleGAN'; choose one of: 'StyleCLIP', 'InstructPix2Pix'"),
        ({"occupations": ["astronaut"]}, "unknown occupation 'astronaut'"),
        ({"occupations": []}, "need an editor, a seed and an occupation"),
        ({"people": 0}, "people must be a whole number of at least 1, got 0"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"seeds": [7]}, "unknown seed 7; choose one of: 0, 1, 2"),
    ],
)
def test_bad_input(parts, options, message):
    options = {"sweep": "table", **options}
    with pytest.raises(ValueError, match=message):
        grid.cells(parts, **options)


def test_the_command_computes_what_the_chapters_read(monkeypatch, capsys, tmp_path):
    asked = []

    def computed(parts, wanted, **options):
        ((name, cells),) = wanted.items()
        asked.append((name, options, cells))
        return np.zeros(3)

    monkeypatch.setattr(grid, "computed", computed)
    for name, (_, path_of) in command.TABLES.items():
        table = (lambda parts, name=name: asked.append((name,)) or np.zeros(2), path_of)
        monkeypatch.setitem(command.TABLES, name, table)
    command.main(["--seeds", "0", "2", "--folder", str(tmp_path)])
    assert [a[0] for a in asked] == ["table", "curves", "ablations", "relevance", "parts"]
    assert {cell["seed"] for cell in asked[0][2]} == {0, 2}
    assert asked[0][1]["folder"] == tmp_path
    assert "table: 3 rows" in (out := capsys.readouterr().out)
    assert f"kept in {tmp_path}" in out
    command.main(["table", "--address", "head:6379", "--workers", "2"])
    assert len(asked) == 6
    assert (asked[-1][1]["address"], asked[-1][1]["workers"]) == ("head:6379", 2)
    for wrong, message in ((["--people", "0"], "got 0"), (["--seeds", "7"], "unknown seed 7"), (["--device", "x"], "device 'x'")):
        monkeypatch.undo()
        with pytest.raises(SystemExit, match=f"^python -m debias_utils.evaluate: .*{message}"):
            command.main(["table", "--folder", str(tmp_path), *wrong])
    for wrong, choice in (
        (["--profile", "huge"], "'mini'"),
        (["tables"], "choose from table, curves, ablations, relevance, parts"),
    ):
        with pytest.raises(SystemExit):
            command.main(wrong)
        assert choice in capsys.readouterr().err


def test_the_command_itself_keeps_rows_and_does_only_what_is_missing(tmp_path, capsys, few_steps):
    which = ["table", "--editors", "StyleCLIP", "--people", "1", "--seeds", "2", "--device", "cpu", "--folder", str(tmp_path)]
    command.main(which)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert len(times) == 6  # the methods, and the control
    command.main(which)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == times
    assert "table: 84 rows" in capsys.readouterr().out
    assert set(OCCUPATIONS) == set(pd.concat(map(pd.read_parquet, times))["occupation"])
