import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debias_utils import load_profile
from debias_utils.evaluate import cells, grid, plan
from debias_utils.evaluate.instruct_study import GUIDANCE, LAST, SAMPLER_STEPS
from debias_utils.evaluate.names import BEFORE, GRADIENT, INSTRUCT, STYLECLIP, TEXT
from debias_utils.evaluate.study import ALPHA

SECONDS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30)
WORKERS, START = st.integers(1, 12), st.floats(0, 1e3)


@given(SECONDS, WORKERS, START)
def test_between_the_bounds(seconds, workers, start):
    found = plan.plan(seconds, workers=workers, start=start)
    total, longest, slack = sum(seconds), max(seconds), 1 + 1e-9
    assert found.seconds * slack >= start + max(total / workers, longest)
    assert found.seconds <= slack * (start + total / workers + (1 - 1 / workers) * longest)  # Graham 1969
    assert found.idle == pytest.approx(1 - total / (workers * found.seconds) if found.seconds else 0, abs=1e-9)


@given(SECONDS, WORKERS, START)
def test_no_worker_computes_two_cells_at_a_time_and_none_waits_while_there_are_cells(seconds, workers, start):
    found = plan.plan(seconds, workers=workers, start=start)
    assert found.end == pytest.approx(found.begin + seconds)
    assert (found.begin >= start).all()
    assert sorted(found.begin) == list(found.begin)  # in their order
    for worker in range(workers):
        of = found.worker == worker
        assert list(found.begin[of]) == [start, *found.end[of][:-1]][: of.sum()]


@given(SECONDS, START)
def test_one_worker_takes_the_sum(seconds, start):
    assert plan.plan(seconds, workers=1, start=start).seconds == pytest.approx(start + sum(seconds))


@given(SECONDS, WORKERS, st.data())
def test_no_anomalies(seconds, workers, data):
    """Another worker, and a cell that is shorter, never make it longer: the cells need nothing from one another."""
    before = plan.plan(seconds, workers=workers).seconds
    assert plan.plan(seconds, workers=workers + 1).seconds <= before
    i = data.draw(st.integers(0, len(seconds) - 1))
    shorter = [*seconds[:i], data.draw(st.floats(0, seconds[i])), *seconds[i + 1 :]]
    assert plan.plan(shorter, workers=workers).seconds <= before


def test_a_case_by_hand():
    found = plan.plan([3, 1, 1, 4], workers=2, start=1)
    assert list(found.worker) == [0, 1, 1, 1]
    assert list(found.begin) == [1, 1, 2, 3]
    assert (found.seconds, found.idle) == (7, pytest.approx(5 / 14))


@pytest.mark.parametrize("seconds", [[], [1, -1], [float("nan")], [float("inf")]])
def test_seconds_that_are_none(seconds):
    with pytest.raises(ValueError, match="need cells, and seconds that are finite and not negative"):
        plan.plan(seconds, workers=1)


def test_other_bad_input():
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, got 0"):
        plan.plan([1], workers=0)
    with pytest.raises(ValueError, match="start=-1"):
        plan.plan([1], workers=1, start=-1)
    with pytest.raises(ValueError, match="unknown editor 'StyleGAN'"):
        plan.calls("StyleGAN", BEFORE, steps=1, sampler_steps=1, at=1)
    with pytest.raises(ValueError, match="unknown call whose estimate the losses see 3"):
        plan.calls(INSTRUCT, BEFORE, steps=1, sampler_steps=2, at=3)


def test_flops_by_hand():
    x, linear = torch.zeros(3, 8), torch.nn.Linear(8, 5)
    assert plan.flops(lambda: linear(x)) == 2 * 3 * 8 * 5
    assert plan.cost(linear, x) == (2 * 8 * 5, 4 * 8 * 5)  # the weights' own gradient, a third of it, is not computed
    convolution, picture = torch.nn.Conv2d(2, 4, 3, padding=1, device="meta"), torch.zeros(5, 2, 6, 6, device="meta")
    assert plan.cost(convolution, picture).forward == 2 * 2 * 4 * 9 * 36


def test_seconds_are_the_fastest_without_the_first(monkeypatch):
    clock = iter([0, 1, 100, 103, 103, 113, 113, 115])
    monkeypatch.setattr(plan.time, "perf_counter", lambda: next(clock))
    assert plan.seconds(lambda: None, repeats=3) == 2


def test_a_slow_call_is_made_once(monkeypatch):
    calls, clock = [], iter([0, 11, 20, 29, 30, 32])
    monkeypatch.setattr(plan.time, "perf_counter", lambda: next(clock))
    assert plan.seconds(lambda: calls.append(1), repeats=1, slow=10) == 11
    assert len(calls) == 1
    assert plan.seconds(lambda: calls.append(1), repeats=1, slow=10) == 2  # the first took 9 and does not count


@pytest.fixture(scope="module")
def mini():
    """The parts of the mini profile, and what one call of each costs."""
    parts = load_profile("mini", device="cpu")
    return parts, {name: plan.cost(run, x) for name, (run, x) in plan.networks(parts).items()}


@pytest.mark.parametrize("method", [BEFORE, TEXT, GRADIENT])
@pytest.mark.parametrize(("editor", "people", "strength"), [(STYLECLIP, 24, ALPHA), (INSTRUCT, 3, GUIDANCE[0])])
def test_calls_are_those_of_a_real_cell(mini, editor, people, strength, method):
    """What another occupation adds to a cell, as torch counts it, is what `calls` says."""
    (parts, costs), steps = mini, 2

    def counted(*jobs):
        cell = {
            "editor": editor, "rho": 0.9, "seed": 0, "method": method, "variant": "", "strengths": [strength],
            "people": people, "of": people, "occupations": jobs,
            "options": grid.settings(editor, method) | ({"steps": steps} if method == GRADIENT else {}),
        }  # fmt: skip
        return plan.flops(lambda: cells.compute(cell, profile=parts.name, base_seed=0, device="cpu"))

    counted("nurse")  # the study is kept
    added = counted("nurse", "plumber") - counted("nurse")
    at = SAMPLER_STEPS - LAST + 1
    calls = plan.calls(editor, method, steps=steps, sampler_steps=SAMPLER_STEPS, at=at, checkpoint=False)
    assert people * sum(plan.work(calls, costs).values()) == pytest.approx(added, rel=0.1)
