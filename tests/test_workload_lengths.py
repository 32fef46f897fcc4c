"""Token counts: the percentiles asked for, whole numbers, within bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config.catalog import load, names
from tuner.config.workload import Lengths, Workload
from tuner.workload.lengths import clip_to_context, draw_durations_s, draw_lengths

MANY = 200_000


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_lognormal_goes_through_its_p50_and_p90() -> None:
    drawn = draw_lengths(Lengths(p50=1020, p90=2735), _rng(), MANY)
    assert np.percentile(drawn, [50, 90]) == pytest.approx([1020, 2735], rel=0.01)


@pytest.mark.parametrize("name", [name for name in names(Workload) if name != "tiny"])
def test_clipping_keeps_the_percentiles_of_every_preset(name: str) -> None:
    workload = load(Workload, name)
    for lengths in (workload.prompt, workload.output):
        assert lengths is not None
        drawn = draw_lengths(lengths, _rng(), MANY)
        if lengths.p50 and lengths.p90:
            assert np.percentile(drawn, [50, 90]) == pytest.approx([lengths.p50, lengths.p90], rel=0.02, abs=0.6)


@pytest.mark.parametrize("mean, sd", [(512, 128), (585, 400), (1652, 3000)])
def test_mean_and_sd_are_those_asked_for_however_wide(mean: float, sd: float) -> None:
    drawn = draw_lengths(Lengths(mean=mean, sd=sd), _rng(), MANY)
    assert drawn.mean() == pytest.approx(mean, rel=0.02)
    assert drawn.std() == pytest.approx(sd, rel=0.1)


def test_fixed_lengths_are_all_the_same() -> None:
    assert set(draw_lengths(Lengths(fixed=7), _rng(), 5).tolist()) == {7}


@settings(deadline=None)
@given(
    p50=st.floats(0.5, 1e5),
    ratio=st.floats(1, 50),
    low=st.integers(1, 100),
    room=st.integers(0, 10_000),
    seed=st.integers(0, 100),
)
def test_counts_stay_within_min_and_cap(p50: float, ratio: float, low: int, room: int, seed: int) -> None:
    lengths = Lengths(p50=p50, p90=p50 * ratio, min=low, cap=low + room)
    drawn = draw_lengths(lengths, _rng(seed), 50)
    assert drawn.dtype == np.int64
    assert drawn.min() >= low
    assert drawn.max() <= low + room


@settings(deadline=None)
@given(limit=st.integers(1100, 5000), seed=st.integers(0, 100))
def test_no_request_exceeds_the_context_and_every_prompt_keeps_its_least(limit: int, seed: int) -> None:
    workload = load(Workload, "chat").model_copy(update={"max_model_len": limit})
    assert workload.prompt is not None and workload.output is not None
    drawn = [draw_lengths(lengths, _rng(seed), 200) for lengths in (workload.prompt, workload.output)]
    prompts, outputs = clip_to_context(workload, *drawn)
    assert (prompts + outputs).max() <= limit
    assert prompts.min() >= workload.prompt.min
    assert outputs.tolist() == np.minimum(drawn[1], limit - 1).tolist()


def test_durations_have_the_mean_and_sd_asked_for() -> None:
    drawn = draw_durations_s(8, 6, _rng(), (MANY, 1))
    assert (drawn.mean(), drawn.std()) == (pytest.approx(8, rel=0.02), pytest.approx(6, rel=0.05))
    assert not draw_durations_s(0, 6, _rng(), (3, 1)).any()
