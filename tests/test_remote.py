"""A server that somebody else runs: what it says of itself, and that nothing is done to it but asking."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launchers.access import access_of
from launchers.remote import GONE_AFTER, SAFE_VOCAB, Described, Prompts, describe, open_remote
from tests.remotes import PATIENT, remote_fake, saying
from tests.replays import PLAIN, journal, requests_for
from tests.simulated import free_port
from tuner.config.catalog import load
from tuner.config.model import Model
from tuner.errors import BoxUnusable, ConfigError, ServerFailed
from tuner.requests import Message, Segment
from tuner.target import ClosedLoop, Window
from tuner.workload.chats import chat_segments

MODELS, COMPLETIONS, CHAT = "/v1/models", "/v1/completions", "/v1/chat/completions"
ONE = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}
TWO = {"data": [{"id": "m"}, {"id": "lora"}]}
OK: tuple[int, Any] = (200, {})


@pytest.mark.parametrize(
    ("answers", "model", "message"),
    [
        pytest.param({}, None, "no list of models", id="no such path"),
        pytest.param({MODELS: (200, "<html>")}, None, "no list of models", id="no JSON"),
        pytest.param({MODELS: (200, {"data": []})}, None, "no list of models", id="no model"),
        pytest.param({MODELS: (200, TWO)}, None, "several models; name one with --model: m, lora", id="which model"),
        pytest.param({MODELS: (200, ONE)}, "x", "does not serve it; it serves: m", id="another model"),
        pytest.param({MODELS: (200, ONE)}, None, "completions: not offered", id="no completions"),
        pytest.param(
            {MODELS: (200, ONE), COMPLETIONS: (400, {"error": "no token ids"})}, None, "refused .400.*no token ids",
            id="no token ids",
        ),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_measured_is_one_message(
    answers: dict[str, tuple[int, Any]], model: str | None, message: str
) -> None:
    with saying(answers) as url, pytest.raises((BoxUnusable, ConfigError), match=message):
        describe(url, model)


@pytest.mark.parametrize(("prompts", "path"), [("token-ids", COMPLETIONS), ("text", CHAT)])
def test_a_server_is_tried_by_what_the_workload_will_ask_of_it(prompts: Prompts, path: str) -> None:
    other = CHAT if path == COMPLETIONS else COMPLETIONS
    with saying({MODELS: (200, ONE), path: OK}) as url:
        assert describe(url, None, None, prompts).model == "m"
    with (
        saying({MODELS: (200, ONE), other: OK}) as url,
        pytest.raises(BoxUnusable, match=f"{path}: not offered .404"),
    ):
        describe(url, None, None, prompts)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param(None, "it wants a key; give --api-key or set OPENAI_API_KEY", id="none was given"),
        pytest.param("wr0ng", "it does not accept --api-key", id="another one was given"),
    ],
)
def test_a_server_that_wants_a_key_says_so(key: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refusal = (401, {"error": f"Incorrect API key provided: {key}"})
    with saying({MODELS: refusal}) as url, pytest.raises(BoxUnusable, match=message) as refused:
        describe(url, None, key)
    assert "wr0ng" not in str(refused.value)


def test_a_key_that_the_server_repeats_is_not_shown() -> None:
    answers = {MODELS: (200, ONE), COMPLETIONS: (400, {"error": "no quota for s3cr3t"})}
    with saying(answers) as url, pytest.raises(BoxUnusable, match=r"no quota for \*\*\*"):
        describe(url, None, "s3cr3t")


def test_where_nobody_listens_it_says_so() -> None:
    with pytest.raises(BoxUnusable, match="no server answers there"):
        describe(f"http://127.0.0.1:{free_port()}", None)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1:8000", "http://", "localhost"])
def test_an_address_is_written_with_http_and_a_host(url: str) -> None:
    with pytest.raises(ConfigError, match="write http://HOST:PORT"):
        describe(url, None)


@pytest.mark.parametrize(
    ("entry", "vocab"),
    [
        pytest.param({"id": "Qwen/Qwen2.5-7B-Instruct"}, load(Model, "qwen-7b").architecture.vocab, id="its hub id"),
        pytest.param(
            {"id": "x", "root": "qwen-7b"}, load(Model, "qwen-7b").architecture.vocab, id="where it is from"
        ),
        pytest.param({"id": "somebody/else"}, SAFE_VOCAB, id="not known here"),
    ],
)
def test_the_vocabulary_is_the_model_s_where_it_is_known_and_else_a_safe_small_one(
    entry: dict[str, str], vocab: int
) -> None:
    with saying({MODELS: (200, {"data": [entry]}), COMPLETIONS: OK}) as url:
        found = describe(f"{url}/v1/", None)
    assert (found.url, found.vocab, found.max_model_len, found.engine) == (url, vocab, None, "unknown")


@pytest.mark.parametrize(
    ("exported", "engine"),
    [
        pytest.param("vllm:num_requests_running 3\n", "vllm", id="vLLM behind any owner"),
        pytest.param("sglang:num_running_reqs 3\n", "sglang", id="SGLang"),
        pytest.param("http_requests_total 3\n", "me", id="somebody else's metrics"),
        pytest.param("<html>hello</html>", "me", id="no metrics"),
    ],
)
def test_an_engine_is_known_by_its_metrics(exported: str, engine: str) -> None:
    owned = {"data": [{"id": "m", "owned_by": "me"}]}
    with saying({MODELS: (200, owned), COMPLETIONS: OK, "/metrics": (200, exported)}) as url:
        assert describe(url, None).engine == engine


def test_a_folder_s_config_json_says_the_vocabulary(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 300, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 2048,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    entry = {"id": "tiny", "root": str(tmp_path), "max_model_len": 1024}
    with saying({MODELS: (200, {"data": [entry]}), COMPLETIONS: OK}) as url:
        found = describe(url, "tiny")
    assert (found.vocab, found.max_model_len) == (300, 1024)


def test_no_probe_repeats_a_prompt_of_another_and_what_was_shared_is_still_shared() -> None:
    shared = Segment(7, 6)
    requests = requests_for(PLAIN, PLAIN, PLAIN)
    requests = type(requests)(**vars(requests) | {"segments": tuple((shared, Segment(i, 4)) for i in range(3))})
    with remote_fake() as (url, target):
        probes = []
        for _ in range(2):
            target.reset_cache()
            target.replay(requests, ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
            probes.append([tuple(entry["body"]["prompt"]) for entry in journal(url)["entries"]])
    assert [len(prompts) for prompts in probes] == [3, 3]
    assert all(len({prompt[:6] for prompt in prompts}) == 1 for prompts in probes)
    assert len({prompt for prompts in probes for prompt in prompts}) == 6
    assert len({prompt[:6] for prompts in probes for prompt in prompts}) == 2


def test_every_request_of_a_probe_says_who_asks() -> None:
    with remote_fake(access_of("http://127.0.0.1", "s3cr3t")[1]) as (url, target):
        target.replay(requests_for(PLAIN, PLAIN), ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
        assert [entry["authorization"] for entry in journal(url)["entries"]] == ["Bearer s3cr3t"] * 2


def test_real_text_is_marked_anew_for_each_probe() -> None:
    chats = ((Message("system", "Be brief."), Message("user", "Why?")), (Message("user", "How?"),))
    requests = replace(requests_for(5, 3), segments=chat_segments(chats), chats=chats)
    with remote_fake() as (url, target):
        begun = []
        for _ in range(2):
            target.reset_cache()
            target.replay(requests, ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
            begun.append([entry["body"]["messages"][0]["content"] for entry in journal(url)["entries"]])
    assert all(texts[0].endswith(" Be brief.") and texts[1].endswith(" How?") for texts in begun)
    assert len({text.split()[0] for texts in begun for text in texts}) == 2


def test_a_server_that_is_gone_ends_the_measurement() -> None:
    with open_remote(Described(f"http://127.0.0.1:{free_port()}", "m", "vllm", SAFE_VOCAB, None), PATIENT) as target:
        for _ in range(GONE_AFTER - 1):
            target.check_alive()
        with pytest.raises(ServerFailed, match="the server is gone"):
            target.check_alive()
