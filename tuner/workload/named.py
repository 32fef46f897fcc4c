"""What `--workload` takes: a name, a YAML file, a trace, or fixed lengths such as `1024x128`."""

import re
from pathlib import Path
from typing import Any

from tuner.config.catalog import load, names
from tuner.config.strict import suggestion
from tuner.config.workload import ONLY_TEXTS_END, Arrivals, Lengths, Workload
from tuner.errors import ConfigError
from tuner.workload.traces import Trace, read_trace

TRACES = (".jsonl", ".json", ".csv")


def load_workload(text: str) -> Workload:
    """The workload that `text` names. Traces are read once here, so that a bad one is told before the study.

    Raises ConfigError.
    """
    if text.endswith(TRACES):
        return _recorded(Path(text).expanduser())
    fixed = re.fullmatch(r"(\d+)x(\d+)", text)
    if fixed:
        return _fixed(text, int(fixed[1]), int(fixed[2]))
    if text.endswith((".yaml", ".yml")) or text in names(Workload):
        return _knowing_its_trace(load(Workload, text))
    known = names(Workload)
    raise ConfigError(
        f"no workload named '{text}'{suggestion(text, known)}; there is: {', '.join(known)}; "
        "or a trace or prompts (.csv, .jsonl, .json), or fixed lengths such as 1024x128"
    )


def fitted(workload: Workload, max_context: int) -> tuple[Workload, tuple[str, ...]]:
    """The workload for a model that takes `max_context` tokens, and what to tell of what that leaves out.

    Raises ConfigError if nothing of it fits.
    """
    shorter = workload.fitted(max_context)
    if shorter.trace is None:
        return shorter, ()
    trace = read_trace(Path(shorter.trace))
    assert shorter.max_model_len is not None
    kept = trace.fitting(shorter.max_model_len)
    n, left_out = len(trace.prompt_tokens), len(trace.prompt_tokens) - len(kept.prompt_tokens)
    if not left_out:
        return shorter, ()
    which = f"{left_out:,} of {n:,} requests of {Path(shorter.trace).name}"
    said = f"{which} are longer than {shorter.max_model_len:,} tokens and are left out"
    # Rates and speeds are those of the requests that are sent.
    return shorter.model_copy(update={"trace_rate_rps": kept.rate_rps}), (said,)


def _recorded(path: Path) -> Workload:
    trace = read_trace(path)
    return Workload(
        name=path.stem,
        title=f"{'Trace' if trace.chats is None else 'Prompts of'} {path.name}",
        source=f"{path} ({len(trace.prompt_tokens):,} requests)",
        trace=str(path.resolve()),
        arrivals=Arrivals(kind="poisson" if trace.arrival_s is None else "trace"),
        **_found_in(trace),
    )


def _knowing_its_trace(workload: Workload) -> Workload:
    """The same workload, with what is found in its trace."""
    if workload.trace is None:
        return workload
    trace = read_trace(Path(workload.trace))
    if trace.rate_rps is None and workload.arrivals.kind == "trace":
        raise ConfigError(f"{workload.trace}: arrivals of kind trace need its times, and it has none")
    if trace.chats is None and workload.answer_ends == "natural":
        raise ConfigError(f"{workload.trace}: answer_ends: {ONLY_TEXTS_END}")
    return workload.model_copy(update=_found_in(trace))


def _found_in(trace: Trace) -> dict[str, Any]:
    return {"real_text": trace.chats is not None, "trace_rate_rps": trace.rate_rps}


def _fixed(name: str, prompt: int, output: int) -> Workload:
    if not prompt or not output:
        raise ConfigError(f"--workload {name}: both lengths must be at least 1 token")
    return Workload(
        name=name,
        title=f"{prompt} tokens in, {output} out",
        source="fixed lengths given with --workload",
        prompt=Lengths(fixed=prompt),
        output=Lengths(fixed=output),
    )
