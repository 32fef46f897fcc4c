import numpy as np
import pytest

from tuner.load.reuse import reusable_tokens
from tuner.requests import Requests, Segment

SYSTEM, QUESTION, ANSWER, OTHER = (Segment(seed, tokens) for seed, tokens in ((1, 512), (2, 100), (3, 20), (4, 7)))


def requests_of(*prompts: tuple[Segment, ...]) -> Requests:
    n = len(prompts)
    return Requests(
        seed=0,
        prompt_tokens=np.array([sum(segment.tokens for segment in prompt) for prompt in prompts]),
        output_tokens=np.full(n, 10),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=prompts,
    )


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        pytest.param([(QUESTION,), (OTHER,)], [0, 0], id="nothing in common"),
        pytest.param([(QUESTION,), (QUESTION,)], [0, 100], id="the same prompt again"),
        pytest.param([(SYSTEM, QUESTION), (SYSTEM, OTHER)], [0, 512], id="a system text"),
        pytest.param([(SYSTEM, QUESTION), (SYSTEM, QUESTION, ANSWER, OTHER)], [0, 612], id="a turn before"),
        pytest.param([(SYSTEM, QUESTION), (OTHER, QUESTION)], [0, 0], id="in the middle is not at the beginning"),
        pytest.param([(SYSTEM,), (SYSTEM, OTHER), (SYSTEM, OTHER)], [0, 512, 519], id="each adds to what is known"),
    ],
)
def test_what_an_endless_cache_would_hold_of_each_prompt_follows_from_the_workload(prompts, shared):
    assert reusable_tokens(requests_of(*prompts), np.arange(len(prompts))).tolist() == shared


def test_only_prompts_that_were_sent_before_count():
    requests = requests_of((SYSTEM, QUESTION), (SYSTEM, OTHER), (SYSTEM,))
    assert reusable_tokens(requests, np.array([2, 1])).tolist() == [0, 512]
