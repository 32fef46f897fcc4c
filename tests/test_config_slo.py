"""SLOs: limits and how many requests must meet them."""

import pytest

from tests.builders import an_slo
from tuner.config.slo import KEEPS_UP_TTFT_S, Limits, Slo
from tuner.config.strict import parse
from tuner.errors import ConfigError


def test_scaling_multiplies_every_limit_and_nothing_else() -> None:
    slo = an_slo(limits=Limits(ttft_s=1.0, ttft_s_per_prompt_token=0.01, tpot_s=0.1, itl_s=0.2, e2e_s=4.0))
    scaled = slo.scaled(0.5)
    assert scaled.limits == Limits(ttft_s=0.5, ttft_s_per_prompt_token=0.005, tpot_s=0.05, itl_s=0.1, e2e_s=2.0)
    assert scaled.model_copy(update={"limits": slo.limits}) == slo


def test_a_limit_that_does_not_exist_is_not_invented_by_scaling() -> None:
    assert an_slo(limits=Limits(e2e_s=2.0)).scaled(2).limits.present() == {"e2e_s": 4.0}


@pytest.mark.parametrize(
    "limits, waits_s",
    [
        pytest.param({"tpot_s": 0.1}, KEEPS_UP_TTFT_S, id="pace only"),
        pytest.param({"itl_s": 0.1}, KEEPS_UP_TTFT_S, id="gaps only"),
        pytest.param({"tpot_s": 0.1, "ttft_s": 60.0}, 60.0, id="waiting is limited"),
        pytest.param({"tpot_s": 0.1, "e2e_s": 60.0}, None, id="the whole request is limited"),
        pytest.param({}, None, id="no limits at all"),
    ],
)
def test_a_limit_on_the_pace_alone_gets_one_on_waiting(limits: dict[str, float], waits_s: float | None) -> None:
    """Else a server that falls behind for ever would be good at any load."""
    assert parse(Slo, an_slo().model_dump() | {"limits": limits}, "slo").limits.ttft_s == waits_s


@pytest.mark.parametrize("attainment, requests", [(0.99, 1000), (0.9, 100), (0.5, 100), (0.0, 100)])
def test_a_level_decides_with_enough_requests_for_its_attainment(attainment: float, requests: int) -> None:
    assert an_slo(attainment=attainment).deciding_requests == requests


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attainment": 99}, "slo: attainment: should be less than 1, found 99"),
        ({"attainment": -0.1}, "slo: attainment: should be greater than or equal to 0, found -0.1"),
        ({"limits": {"ttft_s": 0}}, "slo: limits.ttft_s: should be greater than 0, found 0"),
        ({"limits": {"ttft_s_per_prompt_token": 0.1}}, "slo: limits: ttft_s_per_prompt_token needs ttft_s beside it"),
        ({"limits": {"tftt_s": 1}}, "slo: limits: unknown key 'tftt_s' (did you mean 'ttft_s'?); allowed: "
         "'e2e_s', 'itl_s', 'tpot_s', 'ttft_s', 'ttft_s_per_prompt_token'"),
    ],
)  # fmt: skip
def test_an_slo_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        parse(Slo, an_slo().model_dump() | change, "slo")
    assert str(mistake.value) == message
