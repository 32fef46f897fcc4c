"""The final summary on stdout."""

import re

import pytest

from tests.studies import (
    ENDINGS,
    deploy,
    deploy_as_predicted,
    deploy_without_default,
    inconclusive,
    interrupted,
    nothing,
)
from tuner.terminal.final import final_text
from tuner.terminal.scatter import Mark, staircase_plot, ticks


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_fits_80_columns_and_prints_no_none(name):
    text = final_text(*ENDINGS[name]())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert not re.search(r"\bNone\b|\bnan\b|\binf\b", text)
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_goodput_its_load_and_what_the_server_kept_up_with_stand_in_one_table():
    rows = [line[2:12] for line in final_text(*deploy()).splitlines() if "req/s per GPU  " in line]
    assert rows == ["goodput, r", "at a load ", "kept up wi"]


def test_the_same_study_prints_the_same_text():
    assert final_text(*deploy()) == final_text(*deploy())


def test_the_first_sixteen_lines_hold_verdict_gain_price_sureness_and_command():
    top = "\n".join(final_text(*deploy()).splitlines()[:16])
    for piece in ("DEPLOY t21", "+23 … +32 %", "$ per million out tokens", "HIGH", "vllm serve"):
        assert piece in top


def test_the_command_can_be_pasted_whole():
    summary, outcomes, plan = deploy()
    text = final_text(summary, outcomes, plan)
    pasted = re.search(r"vllm serve(?:[^\n]*\\\n)*[^\n]*", text)
    assert pasted is not None
    assert tuple(pasted[0].replace("\\\n", "").split()) == summary.best.command


def test_a_measured_study_says_what_the_simulation_had_predicted():
    text = re.sub(r"\s+", " ", final_text(*deploy_as_predicted()))
    assert "t21: 7.40 good req/s per GPU and 99.50 % in SLO predicted, 7.22 and 99.30 % measured." in text
    assert "vLLM, median error over 24 probes: TPOT 11 % before, 3 % after calibration; TTFT 20 % before, 8 %" in text
    assert "kept for later simulations: vllm_0.32.0.json" in text
    assert "  predicted " not in final_text(*deploy())


def test_a_default_that_holds_no_load_is_said_so_and_how_near_it_came():
    said = "default   held the SLO at no load of its search: at best 62.0 % in SLO"
    assert said in final_text(*deploy_without_default())


def test_an_inconclusive_study_does_not_recommend_its_command():
    assert "not shown to be better; to try it" in final_text(*inconclusive())


def test_an_interrupted_study_prints_the_line_that_resumes():
    text = final_text(*interrupted())
    assert "--out results/qwen-7b-chat --resume" in text
    assert "best so far, not confirmed" in text


def test_where_nothing_meets_the_slo_the_nearest_and_the_next_steps_are_named():
    text = final_text(*nothing())
    assert "closest   t0  62.0 % in SLO" in text
    assert "TTFT in 2 of 2 that ran" in text
    steps = " ".join(text.partition("try, cheapest first")[2].split())
    assert steps.startswith(
        "1 --slo-scale 1.7 longer limits, the least that t0's requests at 1.00 req/s needed; now "
    )
    assert "2 --attainment 0.62 fewer requests in SLO, as many as t0's requests at 1.00 req/s; now 99 %" in steps


def test_a_frontier_is_drawn_as_falling_steps():
    lines = staircase_plot([(20, 1000), (50, 500), (80, 0)], [Mark(50, 500, "◆", "t1")], ("x", "y"))
    drawn = "\n".join(lines)
    assert "◆ t1" in drawn and "┓" in drawn and "┗" in drawn
    assert next(line for line in lines if "◆" in line).index("◆") > 8


@pytest.mark.parametrize("x, y", [(52, 500), (50, 500), (50, 470), (99, 990), (22, 990)])
def test_two_points_near_each_other_both_keep_their_names(x, y):
    marks = [Mark(50, 500, "■", "default"), Mark(x, y, "◆", "t3")]
    drawn = "\n".join(staircase_plot([(20, 1000), (50, 500), (100, 0)], marks, ("x", "y")))
    assert "default" in drawn and "t3" in drawn and "◆" in drawn


@pytest.mark.parametrize(
    "low, high, wanted, expected",
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (21, 99, 5, [20, 40, 60, 80, 100]),
        (5, 5, 2, [0, 2.5, 5]),
        (0, 0, 2, [0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, wanted, expected):
    assert ticks(low, high, wanted) == expected
