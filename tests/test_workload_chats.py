"""Prompts of real text: how long they are, what they share, and how they are offered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import a_plan
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box
from tuner.errors import ConfigError
from tuner.requests import Message
from tuner.space import spaces_of
from tuner.workload.build import build
from tuner.workload.chats import SEGMENT_BYTES, chat_segments, chats_from, prompt_lengths, tokens_of
from tuner.workload.named import load_workload
from tuner.workload.traces import read_trace


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abcd", 1), ("abcde", 2), ("你好吗", 3), ("é", 1)])
def test_a_token_is_about_four_bytes(text: str, tokens: int) -> None:
    assert tokens_of(text) == tokens


def test_prompts_share_as_many_whole_pieces_as_they_begin_with_alike() -> None:
    rules = "r" * (3 * SEGMENT_BYTES)
    chats = [(Message("user", rules + question),) for question in ("Why?", "How?")]
    one, other = chat_segments(chats)
    assert one[:3] == other[:3]
    assert one[3] != other[3]
    assert prompt_lengths(chats).tolist() == [sum(segment.tokens for segment in one)] * 2 == [193, 193]


def test_the_same_words_of_somebody_else_are_another_text() -> None:
    one, other = chat_segments([(Message("user", "Why?"),), (Message("system", "Why?"),)])
    assert one != other


def test_from_the_second_round_on_no_prompt_is_one_that_was_asked_before() -> None:
    chats = [(Message("system", "Be brief."), Message("user", text)) for text in ("Why?", "How?")]
    offered = chats_from(chats, np.arange(1, 6))
    assert [chat[0].content for chat in offered] == ["Be brief.", *["(2) Be brief."] * 2, *["(3) Be brief."] * 2]
    assert [chat[1].content for chat in offered] == ["How?", "Why?", "How?", "Why?", "How?"]
    assert len(set(offered)) == 5


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"Question {number}: {'why ' * 100}?", "output_tokens": number} for number in range(1, 41)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_requests_are_the_files_prompts_in_its_order(prompts: Path) -> None:
    workload = load_workload(str(prompts))
    assert (workload.real_text, workload.arrivals.kind, workload.title) == (
        True,
        "poisson",
        "Prompts of prompts.jsonl",
    )
    requests = build(workload, 3, 60)
    assert requests.chats is not None and len(requests.chats) == 60
    first = int(requests.output_tokens[0])
    assert requests.output_tokens.tolist() == [(first - 1 + place) % 40 + 1 for place in range(60)]
    assert requests.chats[0][0].content.startswith(f"Question {first}:")
    assert requests.prompt_tokens.tolist() == [sum(part.tokens for part in prompt) for prompt in requests.segments]


def test_prompts_that_might_not_fit_are_left_out(prompts: Path) -> None:
    workload = load_workload(str(prompts))
    longest = int(read_trace(prompts).prompt_tokens.max())
    assert len(set(build(workload.fitted(2 * longest), 0, 40).output_tokens.tolist())) < 40
    with pytest.raises(ConfigError, match="no request of it fits into 100 tokens"):
        build(workload.fitted(100), 0, 40)


def test_a_yaml_may_name_a_file_of_prompts(prompts: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"title: mine\nsource: a test\ntrace: {prompts}\narrivals: {{kind: gamma, cv: 2}}\n"
    )
    assert load_workload(str(tmp_path / "mine.yaml")).real_text


@pytest.mark.parametrize(
    ("said", "ends_naturally"),
    [
        pytest.param("", True, id="nothing"),
        pytest.param("answer_ends: natural\n", True, id="natural"),
        pytest.param("answer_ends: planned\n", False, id="planned"),
    ],
)
def test_answers_to_real_text_end_naturally_unless_their_lengths_are_planned(
    prompts: Path, tmp_path: Path, said: str, ends_naturally: bool
) -> None:
    (tmp_path / "mine.yaml").write_text(f"title: mine\ntrace: {prompts}\n{said}")
    workload = load_workload(str(tmp_path / "mine.yaml"))
    assert workload.ends_naturally == build(workload, 0, 3).ends_naturally == ends_naturally


def test_answers_to_drawn_tokens_do_not_end_naturally(tmp_path: Path) -> None:
    assert not load_workload("chat").ends_naturally
    (tmp_path / "trace.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,48,10\n"
    )
    (tmp_path / "mine.yaml").write_text(f"title: mine\ntrace: {tmp_path}/trace.csv\nanswer_ends: natural\n")
    with pytest.raises(ConfigError, match=r"trace\.csv: answer_ends: .* to real text only"):
        load_workload(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("simulation", [None, "served"])
@pytest.mark.parametrize("real_text", [True, False])
def test_speculation_is_searched_on_real_engines_only_with_real_text(
    prompts: Path, simulation: Any, real_text: bool
) -> None:
    workload = load_workload(str(prompts) if real_text else "chat")
    plan = a_plan(
        engines=(load(EngineSpec, "vllm"),), workload=workload, box=Box(load(Gpu, "h100"), (0,), simulation)
    )
    assert ("speculation" in spaces_of(plan)["vllm"].values) == (real_text or simulation is not None)
