"""Trace files: what is read from each format, and how requests follow them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tuner.config.workload import Arrivals, Workload
from tuner.errors import ConfigError
from tuner.requests import FloatArray
from tuner.workload.build import build
from tuner.workload.named import fitted, load_workload
from tuner.workload.traces import read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.9799600,3180,8
2023-11-16 18:17:07.9799600,110,27
2023-11-16 18:17:08.0000000,500,0
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
110,GPT-4,417,505,922,API log
"""


def _mooncake(*rows: tuple[int, int, int, list[int]]) -> str:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)


BATCHES = _mooncake(
    (0, 1000, 5, [0, 1]), (0, 700, 6, [0, 2]), (0, 600, 7, [0, 3]), (3000, 1024, 8, [0, 1]), (6000, 512, 9, [4])
)
SHAREGPT = json.dumps([
    {"id": "a", "conversations": [{"from": "human", "value": "x" * 400}, {"from": "gpt", "value": "y" * 9}]},
    {"id": "b", "conversations": [{"from": "human", "value": "alone"}]},
    {"id": "c", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "z" * 40},
                                  {"from": "human", "value": "more"}, {"from": "gpt", "value": "more"}]},
])  # fmt: skip


def _file(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text, prompts, outputs, times",
    [
        pytest.param(AZURE, [4808, 3180, 110], [10, 8, 27], [0, 1, 4], id="Azure, without the empty answer"),
        pytest.param("\ufeff" + AZURE, [4808, 3180, 110], [10, 8, 27], [0, 1, 4], id="with a byte order mark"),
        pytest.param(AZURE.replace(".9799600", ".979960+00:00").replace(".0000000", ".000000+00:00"),
                     [4808, 3180, 110], [10, 8, 27], [0, 1, 4], id="Azure 2024, with a time zone"),
        pytest.param(BURSTGPT, [472, 417], [18, 505], [0, 105], id="BurstGPT, without the failed request"),
        pytest.param(BATCHES, [1000, 700, 600, 1024, 512], [5, 6, 7, 8, 9], [0, 1, 2, 3, 6],
                     id="Mooncake, its batches spread out"),
        pytest.param(SHAREGPT, [100, 1], [3, 10], None, id="ShareGPT, first exchanges, four bytes a token"),
        pytest.param('{"turns": ["Why?", "How?"]}\n\n{"turns": ["Who are you?"]}\n', [1, 3], [256, 256], None,
                     id="MT-Bench, first turns"),
        pytest.param('{"question": "Why?", "answer": "Because."}\n', [1], [2], None, id="JSONL of questions"),
    ],
)  # fmt: skip
def test_every_format_gives_tokens_and_times(
    text: str, prompts: list[int], outputs: list[int], times: list[float] | None, tmp_path: Path
) -> None:
    trace = read_trace(_file(tmp_path, text))
    assert trace.prompt_tokens.tolist() == prompts
    assert trace.output_tokens.tolist() == outputs
    assert (None if trace.arrival_s is None else trace.arrival_s.tolist()) == (times and pytest.approx(times))


def test_rows_are_put_in_order_of_arrival(tmp_path: Path) -> None:
    header, *rows = AZURE.strip().splitlines()
    trace = read_trace(_file(tmp_path, "\n".join([header, *reversed(rows)])))
    assert trace.prompt_tokens.tolist() == [4808, 3180, 110]


def test_batches_never_overtake_the_next_stamp(tmp_path: Path) -> None:
    close = _mooncake((0, 9, 9, []), (0, 9, 9, []), (1000, 9, 9, []), (1000, 9, 9, []))
    trace = read_trace(_file(tmp_path, close))
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [0, 0.5, 1, 2.5]


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param(
            "a,b\n1,2\n", "not a trace this program knows (its first line fits none); known are Azure CSV ("
        ),
        pytest.param(
            AZURE.replace("3180", "many"), "line 3: invalid literal for int() with base 10: 'many'; known are"
        ),
        pytest.param(AZURE.replace("TIMESTAMP", "TIME"), "line 2: 'TIMESTAMP' is missing; known are"),
        pytest.param('{"input_length": 1}\n', "line 1: 'timestamp' is missing; known are"),
        pytest.param(
            '{"prompt": "a"}\n\n{"prompt": \n', "line 3 is not JSON: Expecting value in column 11; known are"
        ),
        pytest.param("[1, 2]", "row 1: argument of type 'int' is not "),
        pytest.param('[{"prompt": "a"}, {"body": "Why?"}]', "row 2: a row has none of conversations, messages, "),
        pytest.param("[1, 2", "not a trace this program knows (Expecting ',' delimiter: line 1 column 6"),
        pytest.param(BURSTGPT.splitlines()[0] + "\n", "no request with both a prompt and an answer; known are"),
        pytest.param("", "not a trace this program knows (its first line fits none)"),
    ],
    ids=[
        "other columns",
        "no number",
        "a column is missing",
        "a key is missing",
        "a line that is cut",
        "other JSON",
        "other rows",
        "JSON that is cut",
        "no rows",
        "empty",
    ],
)
def test_a_file_that_is_no_trace_is_told_with_the_known_formats(text: str, message: str, tmp_path: Path) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as mistake:
        read_trace(path)
    assert str(mistake.value).startswith(f"{path}: {message}")
    assert "\n" not in str(mistake.value)


def test_a_trace_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere\.csv: cannot be read: No such file or directory$"):
        load_workload("nowhere.csv")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = _file(tmp_path, AZURE)
    assert len(read_trace(path).prompt_tokens) == 3
    path.write_text(AZURE.replace(",500,0", ",500,1"))
    assert len(read_trace(path).prompt_tokens) == 4


def _start(prompts: list[int], of: list[int]) -> int:
    """Where in `of`, read round and round, `prompts` begins."""
    rounds = of * (len(prompts) // len(of) + 2)
    return next(i for i in range(len(of)) if rounds[i : i + len(prompts)] == prompts)


def test_requests_follow_the_trace_round_and_round_from_a_place_the_seed_chooses(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, AZURE)))
    order = [4808, 3180, 110]
    starts = {_start(build(workload, seed, 7).prompt_tokens.tolist(), order) for seed in range(20)}
    assert starts == {0, 1, 2}


@pytest.mark.parametrize(
    ("text", "rate_rps"),
    [
        pytest.param(AZURE, 2 / 4, id="from the first to the last"),
        pytest.param(BATCHES, 4 / 6, id="Mooncake"),
        pytest.param(SHAREGPT, None, id="no times"),
        pytest.param("\n".join(AZURE.splitlines()[:2]), None, id="one request"),
    ],
)
def test_a_trace_knows_its_own_rate(text: str, rate_rps: float | None, tmp_path: Path) -> None:
    assert load_workload(str(_file(tmp_path, text))).trace_rate_rps == (rate_rps and pytest.approx(rate_rps))


def test_times_cannot_be_taken_from_a_file_that_has_none(tmp_path: Path) -> None:
    path = _file(tmp_path, SHAREGPT)
    (tmp_path / "mine.yaml").write_text(f"title: t\nsource: t\ntrace: {path}\narrivals: {{kind: trace}}\n")
    with pytest.raises(ConfigError, match="arrivals of kind trace need its times, and it has none"):
        load_workload(str(tmp_path / "mine.yaml"))


def test_gaps_are_those_of_the_trace_with_mean_one(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, AZURE)))
    assert workload.arrivals.kind == "trace"
    requests = build(workload, 0, 9)
    by_prompt = {4808: 1.0, 3180: 0.5, 110: 1.5}
    first, *others = [by_prompt[tokens] for tokens in requests.prompt_tokens.tolist()]
    assert requests.unit_gaps[1:].tolist() == others
    assert 0 < requests.unit_gaps[0] <= first, "the recording is entered at any time, not only at a request"


def test_a_window_of_a_busy_day_holds_in_the_mean_what_its_load_promises(tmp_path: Path) -> None:
    """An hour at a rate of 1 ± 0.8: windows that begin at a request rather begin in a busy time, with 28 % more."""
    busy_s = np.interp(np.arange(2000), *_busy_hour(2000))
    rows = [f"{at_s:.4f},GPT-4,9,9,18,API log" for at_s in busy_s]
    workload = load_workload(str(_file(tmp_path, "\n".join([BURSTGPT.splitlines()[0], *rows]))))
    assert workload.arrivals.kind == "trace"
    rate_rps, window_s = 5.0, 20.0
    came = [int((np.cumsum(build(workload, seed, 300).unit_gaps) / rate_rps < window_s).sum()) for seed in range(400)]
    assert np.mean(came) == pytest.approx(rate_rps * window_s, abs=3 * np.std(came) / len(came) ** 0.5)
    assert np.std(came) > 0.4 * np.mean(came), "quiet and busy windows are as far apart as they were"


def _busy_hour(n: int) -> tuple[FloatArray, FloatArray]:
    """How many of n requests are expected by each second of an hour in which the rate swings, and the seconds."""
    at_s = np.arange(3601.0)
    expected = np.cumsum(1 + 0.8 * np.sin(2 * np.pi * at_s / 3600))
    return expected * n / expected[-1], at_s


def test_a_recording_in_which_all_came_at_once_begins_at_any_request(tmp_path: Path) -> None:
    same_time = "\n".join([AZURE.splitlines()[0], *(f"2023-11-16 18:17:03,{n},5" for n in (11, 12, 13))])
    workload = load_workload(str(_file(tmp_path, same_time)))
    built = [build(workload, seed, 2) for seed in range(20)]
    assert {int(requests.prompt_tokens[0]) for requests in built} == {11, 12, 13}
    assert not any(requests.unit_gaps.any() for requests in built)


def test_a_trace_without_times_arrives_at_random(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, SHAREGPT, "chats.json")))
    assert workload.arrivals == Arrivals(kind="poisson")
    assert len(set(build(workload, 0, 9).unit_gaps.tolist())) == 9


def test_a_trace_can_be_offered_with_other_arrivals(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, AZURE))).model_copy(update={"arrivals": Arrivals(kind="at_once")})
    assert not build(workload, 0, 9).unit_gaps.any()


def test_equal_hashes_are_equal_text_and_the_next_round_is_new(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, BATCHES, "m.jsonl")))
    requests = next(r for r in (build(workload, seed, 10) for seed in range(99)) if r.output_tokens[0] == 5)
    first, second, _, fourth, _ = requests.segments[:5]
    assert [segment.tokens for segment in first] == [512, 488]
    assert first[0] == second[0] == fourth[0]
    assert first[1].seed == fourth[1].seed
    this_round, next_round = (
        {s.seed for row in rows for s in row} for rows in (requests.segments[:5], requests.segments[5:])
    )
    assert (len(this_round), len(next_round), len(this_round | next_round)) == (5, 5, 10)


def test_what_no_hash_covers_is_fresh(tmp_path: Path) -> None:
    text = _mooncake((0, 1500, 1, [7]), (9, 1500, 2, [7]), (18, 300, 3, []))
    workload = load_workload(str(_file(tmp_path, text, "m.jsonl")))
    requests = build(workload, 0, 3)
    rows = dict(zip(requests.output_tokens.tolist(), requests.segments, strict=True))
    assert [segment.tokens for segment in rows[1]] == [512, 988]
    assert rows[1][0].tokens == rows[2][0].tokens
    assert rows[1][1] != rows[2][1]
    assert [segment.tokens for segment in rows[3]] == [300]


@pytest.mark.parametrize("text", [AZURE, BURSTGPT, BATCHES, SHAREGPT], ids=["azure", "burstgpt", "mooncake", "share"])
def test_more_requests_of_a_trace_keep_the_beginning(text: str, tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, text)))
    short, long = build(workload, 2, 4), build(workload, 2, 11)
    assert short.segments == long.segments[:4]
    assert np.array_equal(short.unit_gaps, long.unit_gaps[:4])
    assert np.array_equal(short.output_tokens, long.output_tokens[:4])
    assert [sum(s.tokens for s in prompt) for prompt in long.segments] == long.prompt_tokens.tolist()


def test_recorded_requests_that_do_not_fit_the_model_are_left_out(tmp_path: Path) -> None:
    workload = load_workload(str(_file(tmp_path, BATCHES, "m.jsonl"))).fitted(800)
    assert set(build(workload, 0, 30).prompt_tokens.tolist()) == {700, 600, 512}
    with pytest.raises(ConfigError, match=r"m\.jsonl: no request of it fits into 100 tokens$"):
        build(workload.fitted(100), 0, 1)


@pytest.mark.parametrize("text, prompt, output", [("1024x128", 1024, 128), ("1x1", 1, 1)])
def test_fixed_lengths_are_a_workload(text: str, prompt: int, output: int) -> None:
    requests = build(load_workload(text), 0, 3)
    assert set(requests.prompt_tokens.tolist()) == {prompt}
    assert set(requests.output_tokens.tolist()) == {output}


@pytest.mark.parametrize(
    "text, message",
    [
        ("0x128", "--workload 0x128: both lengths must be at least 1 token"),
        ("caht", "no workload named 'caht' (did you mean 'chat'?); there is: agent, batch, chat, "),
        ("1024*128", "no workload named '1024*128'; there is: agent, batch, "),
    ],
)
def test_a_workload_that_is_none_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        load_workload(text)
    assert str(mistake.value).startswith(message)


def test_a_workload_is_a_name_or_a_yaml_file(tmp_path: Path) -> None:
    assert load_workload("chat").name == "chat"
    own = _file(tmp_path, "title: x\nsource: y\nprompt: {fixed: 3}\noutput: {fixed: 4}\n", "own.yaml")
    assert isinstance(load_workload(str(own)), Workload)


def test_the_speed_of_a_trace_is_that_of_the_requests_that_fit_and_the_user_is_told(tmp_path: Path) -> None:
    rows = [f"{5 + n},GPT-4,{100 + 1000 * (n % 2)},5,0,API log" for n in range(41)]
    whole = load_workload(str(_file(tmp_path, "\n".join([BURSTGPT.splitlines()[0], *rows]))))
    assert whole.trace_rate_rps == pytest.approx(1.0)
    shorter, said = fitted(whole, 800)
    assert shorter.trace_rate_rps == pytest.approx(0.5)
    assert said == ("20 of 41 requests of trace.csv are longer than 800 tokens and are left out",)
    assert fitted(whole, 8000)[1] == ()
