"""What the running server took counts, not what its file says of its defaults; and it is told."""

from typing import Any

from launchers.command import launch_command
from tests.builders import a_gpu, a_model, an_engine
from tuner.configuration import Configuration
from tuner.engineview import EngineFacts
from tuner.taken import Taken, as_taken

KNOBS: dict[str, Any] = {"max_batch_size": 1024, "token_budget": 8192, "tp": 1, "kv_cache_dtype": "auto"}


def taken(configuration: Configuration, **facts: Any) -> Taken:
    return as_taken(an_engine(), configuration, a_gpu(), EngineFacts("0.32.0", facts))


def test_a_default_that_the_engine_chose_otherwise_is_put_right_and_still_started_without_a_word() -> None:
    default = Configuration("vllm", KNOBS, is_default=True)
    found = taken(default, max_batch_size=256, token_budget=8192, kv_cache_dtype="auto")
    assert found.configuration.knobs == {**KNOBS, "max_batch_size": 256}
    assert found.notes == ("vLLM itself says of its defaults here: max_batch_size 256 (not 1024); that counts",)
    before, after = (launch_command(an_engine(), a_model(), one, a_gpu()) for one in (default, found.configuration))
    assert after == before == ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")


def test_what_was_named_and_not_done_is_told_but_stays_what_was_asked_for() -> None:
    asked = Configuration("vllm", KNOBS)
    found = taken(asked, token_budget=2048)
    assert found.configuration.knobs == KNOBS
    assert found.notes == ("vLLM did not do as it was told: token_budget 2048 (not 8192)",)


def test_a_choice_that_says_nothing_is_the_engines_in_every_configuration() -> None:
    asked = Configuration("vllm", {**KNOBS, "token_budget": 2048})
    found = taken(asked, kv_cache_dtype="fp8_e4m3", token_budget=2048)
    assert found.configuration.knobs == {**asked.knobs, "kv_cache_dtype": "fp8_e4m3"}
    assert found.notes == ()
    before, after = (launch_command(an_engine(), a_model(), one, a_gpu()) for one in (asked, found.configuration))
    assert after == before


def test_a_knob_that_the_user_fixed_is_no_default_of_the_engine() -> None:
    fixed = Configuration("vllm", {**KNOBS, "token_budget": 512}, is_default=True)
    found = taken(fixed, token_budget=1024)
    assert found.configuration.knobs == fixed.knobs and "did not do" in found.notes[0]


def test_an_engine_that_says_nothing_or_the_same_changes_nothing() -> None:
    asked = Configuration("vllm", KNOBS, is_default=True)
    assert as_taken(an_engine(), asked, a_gpu(), None) == Taken(asked)
    assert taken(asked, max_batch_size=1024.0, not_a_knob=3) == Taken(asked)
