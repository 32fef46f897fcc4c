"""Numbers, names and sentences that users read."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    a_configuration,
    a_crash,
    a_miss,
    a_plan,
    a_point,
    a_score,
    a_summary,
    an_engine,
    an_outcome,
    an_slo,
)
from tuner.config.plan import Box
from tuner.config.slo import Limits
from tuner.summary import Gain
from tuner.target import ClosedLoop, OpenLoop
from tuner.wording.commands import command_lines, resume_command, study_command
from tuner.wording.comparison import comparison, percentile_name
from tuner.wording.conclusion import (
    closest,
    closest_text,
    cost,
    default_holds_nothing,
    next_steps,
    sentence,
    what_breaks,
)
from tuner.wording.fluidity import fluidity_meaning
from tuner.wording.naming import ending, naming_of, short, slo_text, title
from tuner.wording.numbers import (
    duration,
    goodput,
    interval,
    latency,
    limit,
    load_text,
    more_requests,
    number,
    share,
)


@pytest.mark.parametrize(
    "value, text",
    [
        (7.2222, "7.22"),
        (7.2, "7.20"),
        (9.996, "10.0"),
        (0.003411, "0.00341"),
        (1234.5, "1,230"),
        (123456, "123,000"),
        (0, "0"),
        (-1.234, "-1.23"),
        (None, "—"),
        (math.nan, "—"),
        (math.inf, "—"),
    ],
)
def test_a_number_has_three_significant_digits_and_no_exponent(value, text):
    assert number(value) == text


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_printed_number_is_within_half_a_percent_of_the_value(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4462, "446 ms"), (0.0338, "33.8 ms"), (0.9996, "1.00 s"), (1.24, "1.24 s"), (None, "—")],
)
def test_a_latency_is_in_milliseconds_below_a_second(seconds, text):
    assert latency(seconds) == text


@pytest.mark.parametrize("frac, text", [(0.9713, "97.1 %"), (0.9896, "98.96 %"), (1.0, "100 %"), (None, "—")])
def test_a_share_gets_two_decimals_where_slos_are_decided(frac, text):
    assert share(frac) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(4.23, "4.2s"), (41.4, "41s"), (59.6, "1m00s"), (250, "4m10s"), (9660, "2h41m"), (273600, "3d4h")],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "ratio, text",
    [
        (1.276, "28 % more requests"),
        (0.969, "3.1 % fewer requests"),
        (1.0, "as many requests"),
        (2.41, "2.4 times the default's requests"),
    ],
)
def test_a_gain_says_more_or_fewer(ratio, text):
    assert more_requests(ratio) == text


@pytest.mark.parametrize(
    "gain, text",
    [
        (Gain(1.276, (1.23, 1.32)), "95 % CI +23 … +32 %"),
        (Gain(1.004, (0.98, 1.03)), "95 % CI −2.0 … +3.0 %"),
        (Gain(2.4, (2.1, 2.7)), "95 % CI 2.1 … 2.7 times"),
    ],
)
def test_an_interval_is_in_the_terms_of_its_gain(gain, text):
    assert interval(gain) == text


@pytest.mark.parametrize(
    "ci95, text", [((7.02, 7.42), "7.22 ±0.20"), ((7.0, 7.3), "7.22 ±0.22"), (None, "7.22"), ((7.22, 7.22), "7.22")]
)
def test_goodput_carries_the_longer_arm_of_its_interval_if_it_has_one(ci95, text):
    assert goodput(a_point(ci95=ci95)) == text


@pytest.mark.parametrize(
    "load, text",
    [
        (OpenLoop(8.4), "8.40 req/s"),
        (ClosedLoop(32), "32 users"),
        ({"rate_rps": 8.4}, "8.40 req/s"),
        ({"users": 32.0}, "32 users"),
    ],
)
def test_a_load_is_a_rate_or_users(load, text):
    assert load_text(load) == text


def test_a_limit_is_printed_as_it_was_given():
    assert [limit(0.05), limit(2.0), limit(0.035)] == ["50 ms", "2 s", "35 ms"]


def test_a_configuration_is_named_by_what_differs_from_the_default():
    naming = naming_of(a_plan())
    changed = a_configuration(token_budget=512, kv_cache_dtype="fp8")
    assert title(naming, "vllm", changed.knobs) == "budget 512 · kv fp8"
    assert title(naming, "vllm", a_configuration().knobs) == "(engine default)"


def test_the_engine_is_named_where_a_study_has_several():
    naming = naming_of(a_plan(engines=(an_engine(), an_engine(name="sglang"))))
    assert title(naming, "sglang", a_configuration(tp=2).knobs) == "sglang · tp 2"
    assert title(naming, "vllm", a_configuration().knobs) == "vllm (engine default)"


def test_a_default_that_was_seen_is_believed_before_the_engines_file():
    fixed = a_configuration(is_default=True, tp=4)
    naming = naming_of(a_plan(), [fixed])
    assert title(naming, "vllm", a_configuration(tp=4).knobs) == "(engine default)"


@pytest.mark.parametrize(
    "knob, text",
    [
        ("token_budget", "budget"),
        ("max_batch_size", "batch"),
        ("gpu_memory_utilization", "memory"),
        ("tp", "tp"),
        ("chunked_prefill", "chunked-prefill"),
    ],
)
def test_a_knob_is_shortened_to_the_words_that_tell(knob, text):
    assert short(knob) == text


@pytest.mark.parametrize(
    "outcome, text",
    [
        (an_outcome(), "in SLO"),
        (a_miss(), "misses SLO: TTFT"),
        (a_crash(), "out of memory"),
        (an_outcome(3, state="pruned", value_rps_per_gpu=0.0), "stopped early"),
        (a_miss(best=a_score(1.0, 0.5, missed={"failed": 500, "ttft_s": 20})), "misses SLO: requests fail"),
    ],
)
def test_an_ending_is_told_in_plain_words(outcome, text):
    assert ending(outcome) == text


def test_an_slo_says_its_limits_and_for_how_many():
    assert slo_text(an_slo()) == "TTFT ≤ 200 ms and P99 ITL ≤ 50 ms for 99 % of requests"
    aware = an_slo(limits=Limits(ttft_s=0.2, ttft_s_per_prompt_token=0.0004), attainment=0.9)
    assert slo_text(aware) == "TTFT ≤ 200 ms + 0.400 ms per prompt token for 90 % of requests"
    assert slo_text(an_slo(limits=Limits(), attainment=0.0)) == "no latency limit"


@pytest.mark.parametrize("attainment, name", [(0.99, "p99"), (0.95, "p90"), (0.9, "p90"), (0.5, "p50")])
def test_the_percentile_shown_is_one_the_slo_speaks_of(attainment, name):
    assert percentile_name(attainment) == name


def test_a_limit_is_marked_by_what_is_deployed():
    slow = a_point(ttft_s=a_score().ttft_s.__class__(0.1, 0.2, 0.3))
    rows = {row.label: row for row in comparison(a_summary(best=slow), a_plan())}
    assert rows["TTFT p99"].holds is False
    assert rows["requests inside the SLO"].holds is True


@pytest.mark.parametrize(
    ("default", "best", "shown"),
    [
        pytest.param({}, {}, ("≥ 7.90", "≥ 7.90", "queue stayed short"), id="both, at least"),
        pytest.param({}, {"capacity_is_least": False}, ("≥ 7.90", "7.90", "queue stayed short"),
                     id="one that did not keep up with hardly more"),
        pytest.param({"capacity_rps_per_gpu": 0.0}, {"capacity_by": "ttft"}, ("—", "≥ 7.90", "TTFT stayed short"),
                     id="a default that kept up with no rate, and no queue times"),
        pytest.param({"capacity_rps_per_gpu": None}, {"capacity_rps_per_gpu": None}, None, id="users"),
    ],
)  # fmt: skip
def test_what_a_server_kept_up_with_stands_in_the_table_of_its_goodput(default, best, shown):
    summary = a_summary(default=a_point(0, **default), best=a_point(**best))
    rows = {row.label: row for row in comparison(summary, a_plan())}
    row = rows.get("kept up with, req/s per GPU")
    assert (row and (row.default, row.best, row.note)) == shown


def test_a_limit_that_grows_with_the_prompt_is_said_whole_and_held_against_no_percentile():
    aware = an_slo(limits=Limits(ttft_s=0.2, ttft_s_per_prompt_token=0.0004))
    slow = a_point(ttft_s=a_score().ttft_s.__class__(0.1, 0.2, 0.3))
    rows = {row.label: row for row in comparison(a_summary(best=slow), a_plan(slo=aware))}
    assert rows["TTFT p99"].holds is None
    assert rows["TTFT p99"].note == "limit 200 ms + 0.400 ms per prompt token"


IDLE = a_score(load=ClosedLoop(1), attainment=0.2)
FAILING = a_score(1.0, 0.3, missed={"failed": 700})


@pytest.mark.parametrize(
    ("outcomes", "plan", "steps"),
    [
        pytest.param(
            [a_miss(0), a_miss(1, needed_scale=1.3)], {},
            {"--slo-scale 1.3": "the least that t1's requests at 1.00 req/s needed; now TTFT ≤ 200 ms",
             "--attainment 0.62": "as many as t0's requests at 1.00 req/s; now 99 %"},
            id="the trial that needs the least, and the one that came nearest",
        ),
        pytest.param(
            [a_miss(0, needed_scale=3.0)], {"typed": ("tune", "--slo-scale", "0.5")},
            {"--slo-scale 1.5": "", "--attainment 0.62": ""}, id="limits that had been scaled already",
        ),
        pytest.param(
            [a_miss(0, needed_scale=3.0)], {"slo": an_slo(limits=Limits(ttft_s=0.1, itl_s=0.025))},
            {"--slo-scale 1.5": "", "--attainment 0.62": ""}, id="scaled, though nothing was typed",
        ),
        pytest.param(
            [a_miss(0, probes=(IDLE,), best=IDLE, needed_scale=4.2)], {},
            {"--slo-scale 4.2": "the least that t0's requests one at a time needed"}, id="lonely requests miss it",
        ),
        pytest.param([a_miss(0, best=FAILING, needed_scale=None)], {}, {}, id="failures, which no limit mends"),
        pytest.param(
            [an_outcome(0)], {"slo": an_slo(min_throughput_rps=100.0)},
            {"--gpus 15": "as many GPUs as 100 req/s take, for t0 reaches 6.95 each"},
            id="limits held by too few GPUs",
        ),
    ],
)  # fmt: skip
def test_next_steps_are_those_that_what_was_measured_says_would_help(outcomes, plan, steps):
    said = dict(next_steps(outcomes, a_plan(**plan)))
    assert said.pop("--model …") == "a smaller or quantised model"
    assert list(said) == list(steps)
    assert all(words in said[option] for option, words in steps.items())


@pytest.mark.parametrize(
    ("limits", "meaning"),
    [
        pytest.param(
            Limits(ttft_s=0.2, tpot_s=0.05), "due within 200 ms, each other one 50 ms (TPOT limit)", id="both"
        ),
        pytest.param(
            Limits(itl_s=0.05, e2e_s=2.0), "due when it comes, each other one 50 ms (ITL", id="a pace alone"
        ),
        pytest.param(Limits(e2e_s=2.0), "the share of its tokens' deadlines that it meets", id="no pace"),
    ],
)
def test_fluidity_is_explained_by_the_limits_that_there_are(limits, meaning):
    assert meaning in fluidity_meaning(limits)


def test_a_box_that_is_too_small_for_the_throughput_wanted_is_called_that():
    slo = an_slo(limits=Limits(), attainment=0.0, min_throughput_rps=100.0)
    missed = a_summary(verdict="nothing-meets-slo", best=None, default=None)
    plan, tried = a_plan(slo=slo), [an_outcome(0, value_rps_per_gpu=2.0), an_outcome(1, value_rps_per_gpu=5.9)]
    assert sentence(missed, plan) == "No configuration reaches 100 req/s on 8 × H100"
    assert (nearest := closest(tried)) and nearest.trial == 1
    assert closest_text(nearest, plan) == "5.90 req/s per GPU inside the SLO"
    assert what_breaks(tried) == "the throughput that is wanted"


def test_what_breaks_counts_limits_and_failures():
    assert what_breaks([a_miss(0), a_miss(1), a_crash(2)]) == "TTFT in 2 of 2 that ran, 1 out of memory"
    assert what_breaks([]) == "nothing was measured"
    assert what_breaks([an_outcome(0, best=a_score(attainment=1.0), value_rps_per_gpu=0.0)]) == "no limit"


def test_simulated_time_has_no_price_and_real_time_has():
    plan, real = a_plan(), a_plan(box=Box(a_plan().box.gpu, (0,), None))
    assert cost(a_summary(), plan) == "5.4 GPU-hours of virtual time in 42s"
    assert cost(a_summary(simulated=False), real) == "5.4 GPU-hours ($13.47) in 42s"


def test_a_gain_is_told_with_its_interval():
    told = sentence(a_summary(), a_plan())
    assert told == "28 % more requests per GPU inside the SLO than the default (95 % CI +23 … +32 %)"


def test_a_long_command_is_broken_before_options_and_quoted():
    command = ("vllm", "serve", "m", "--max-num-seqs", "128", "--config", '{"a": 1}', "--flag", "--last", "x")
    lines = command_lines(command, 30)
    assert lines == ["vllm serve m \\", "  --max-num-seqs 128 \\", "  --config '{\"a\": 1}' --flag \\", "  --last x"]


def test_a_study_can_be_started_again_by_its_command():
    plan = a_plan(
        slo=an_slo(limits=Limits(ttft_s=0.16, itl_s=0.04), attainment=0.95),
        asked_knobs={"tp": "1"},
        extra_flags=("--max-model-len", "8192", "--trust-remote-code"),
        trials=None,
        budget_s=7200.0,
    )
    assert " ".join(study_command(plan)) == (
        "tune --model qwen-7b --slo chat --attainment 0.95 --slo-scale 0.8 --engine vllm --simulate virtual "
        "--gpu h100 --gpus 8 --budget 7200s --sampler tpe --seed 0 --knob tp=1 --set max-model-len=8192 "
        "--set trust-remote-code"
    )


@pytest.mark.parametrize(
    "typed",
    [
        ("tune", "--model", "qwen-7b", "--resume"),
        ("tune", "--model", "qwen-7b", "--out", "here"),
        ("tune", "--out=here", "--model", "qwen-7b"),
    ],
)
def test_the_line_that_resumes_names_the_folder_once_however_the_study_was_started(typed):
    command = resume_command(a_plan(typed=typed, out=Path("here")))
    assert command == ("tune", "--model", "qwen-7b", "--out", "here", "--resume")


def test_of_several_engines_each_default_is_told_of():
    outcomes = [
        a_crash(trial=0, configuration=a_configuration(engine="vllm", is_default=True)),
        a_miss(trial=1, configuration=a_configuration(engine="sglang", is_default=True)),
    ]
    said = default_holds_nothing(outcomes, a_plan())
    assert said.startswith("vllm's was not measured: ")
    assert "; sglang's held the SLO at no load of its search: " in said
