"""What prompts share: a system text, documents, earlier turns."""

import numpy as np
import pytest

from tuner.config.catalog import load
from tuner.config.workload import Lengths, SharedPrefix, Turns, Workload
from tuner.requests import Requests, Segment
from tuner.workload.build import build
from tuner.workload.prompts import sharing_prompts


def _rag() -> Requests:
    return build(load(Workload, "rag"), 0, 1000)


def _reused_share(requests: Requests, block: int = 16) -> float:
    """Share of prompt tokens that a prefix cache without limits would have had, in whole blocks."""
    seen: set[tuple[Segment, ...]] = set()
    reused = 0
    for prompt in requests.segments:
        known = 0
        for end in range(1, len(prompt)):
            if prompt[:end] in seen:
                known = sum(segment.tokens for segment in prompt[:end])
            seen.add(prompt[:end])
        reused += known // block * block
    return reused / float(requests.prompt_tokens.sum())


def test_rag_reuses_a_fifth_to_two_fifths_of_its_prompts() -> None:
    assert 0.2 < _reused_share(_rag()) < 0.4


def test_every_rag_prompt_begins_with_the_system_text_and_ends_with_its_own() -> None:
    prompts = _rag().segments
    assert {prompt[0] for prompt in prompts} == {Segment(prompts[0][0].seed, 512)}
    assert len({prompt[-1].seed for prompt in prompts}) == len(prompts)


def test_documents_follow_zipfs_law_and_never_repeat_in_a_prompt() -> None:
    shared = SharedPrefix(documents=50, document_tokens=10, documents_per_request=1, zipf=1.0)
    prompts = sharing_prompts(0, shared, np.full(20_000, 11))
    used, counts = np.unique([prompt[0].seed for prompt in prompts], return_counts=True)
    counts = np.sort(counts)[::-1]
    assert len(used) == 50
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.25)

    several = sharing_prompts(0, shared.model_copy(update={"documents_per_request": 12}), np.full(300, 130))
    assert all(len({segment.seed for segment in prompt}) == len(prompt) for prompt in several)


def test_only_whole_documents_that_fit_are_used() -> None:
    shared = SharedPrefix(documents=50, document_tokens=10, documents_per_request=5)
    for tokens, most in ((1, 0), (10, 0), (11, 1), (30, 2), (500, 5)):
        prompt = sharing_prompts(0, shared, np.array([tokens]))[0]
        assert len(prompt) - 1 <= most
        assert sum(segment.tokens for segment in prompt) == tokens


def _sessions(**turns: object) -> Workload:
    return Workload(
        title="x",
        source="y",
        prompt=Lengths(fixed=100),
        output=Lengths(fixed=20),
        shared=SharedPrefix(system_tokens=1000),
        turns=Turns(**{"per_session": 3, "added_tokens": Lengths(fixed=50), **turns}),
    )


def test_a_turns_prompt_repeats_all_that_was_said_before() -> None:
    requests = build(_sessions(), 0, 7)
    assert requests.session.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert requests.prompt_tokens.tolist() == [1100, 1170, 1240, 1100, 1170, 1240, 1100]
    first, second, third = requests.segments[:3]
    assert [segment.tokens for segment in third] == [1000, 100, 20, 50, 20, 50]
    assert second[:2] == first
    assert third[:4] == second


def test_sessions_share_the_system_text_and_nothing_else() -> None:
    requests = build(_sessions(), 0, 6)
    one, other = ({segment for prompt in requests.segments[i : i + 3] for segment in prompt} for i in (0, 3))
    assert {segment.tokens for segment in one & other} == {1000}


def test_only_later_turns_wait() -> None:
    requests = build(_sessions(think_s_mean=8, think_s_sd=6), 0, 9)
    first = requests.session != np.roll(requests.session, 1)
    assert not requests.think_s[first].any()
    assert requests.think_s[~first].min() > 0


def test_a_session_ends_before_the_turn_that_would_not_fit() -> None:
    requests = build(_sessions().model_copy(update={"max_model_len": 1190}), 0, 4)
    assert requests.session.tolist() == [0, 0, 1, 1]
    assert requests.prompt_tokens.max() == 1170
