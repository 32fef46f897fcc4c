"""Commands as a shell takes them."""

import shlex
from collections.abc import Sequence
from itertools import pairwise

from tuner.config.catalog import load, names
from tuner.config.plan import Plan
from tuner.config.slo import Slo

SCALE = "--slo-scale"


def command_lines(command: Sequence[str], width: int) -> list[str]:
    """A command to paste: quoted, options kept with their value, broken where `width` is reached.

    Lines but the last end in a backslash. A single word longer than `width` is left whole.
    """
    lines = [""]
    for group in _with_values(command):
        if lines[-1] and len(lines[-1]) + len(group) + 3 > width:
            lines.append("  ")
        lines[-1] += group if not lines[-1].strip() else f" {group}"
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def resume_command(plan: Plan) -> tuple[str, ...]:
    """The command that goes on with this study."""
    words = list(study_command(plan))
    while "--out" in words:
        at = words.index("--out")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--out=")]
    return (*words, "--out", str(plan.out), "--resume")


def study_command(plan: Plan) -> tuple[str, ...]:
    """The command that would start this study again."""
    if plan.typed:
        return tuple(word for word in plan.typed if word != "--resume")
    command = ["tune", "--model", plan.model.name, "--slo", plan.slo.name, *_slo_options(plan.slo)]
    command += ["--engine", ",".join(engine.name for engine in plan.engines)]
    if plan.workload.name != plan.slo.workload:
        command += ["--workload", plan.workload.name]
    if plan.box.simulation is not None:
        command += ["--simulate", plan.box.simulation, "--gpu", plan.box.gpu.name, "--gpus", str(len(plan.box.gpus))]
    elif plan.box.gpus:
        command += ["--gpus", ",".join(str(gpu) for gpu in plan.box.gpus)]
    if plan.trials is not None:
        command += ["--trials", str(plan.trials)]
    if plan.budget_s is not None:
        command += ["--budget", f"{plan.budget_s:g}s"]
    command += ["--sampler", plan.sampler, "--seed", str(plan.seed)]
    for knob, asked in plan.asked_knobs.items():
        command += ["--knob", f"{knob}={asked}"]
    return (*command, *_set_options(plan.extra_flags))


def slo_scale(plan: Plan) -> float:
    """The factor that was asked for on the limits of the SLO's file: the one that was typed, else by its name."""
    asked = [value for word, value in pairwise(plan.typed) if word == SCALE]
    asked += [word.removeprefix(f"{SCALE}=") for word in plan.typed if word.startswith(f"{SCALE}=")]
    if plan.typed:
        return float(asked[-1]) if asked else 1.0
    return _scale_of(plan.slo) if plan.slo.name in names(Slo) else 1.0


def _slo_options(slo: Slo) -> list[str]:
    """What was changed of a named SLO: its attainment, or all its limits by one factor."""
    if slo.name not in names(Slo):
        return []
    options = []
    if slo.attainment != load(Slo, slo.name).attainment:
        options += ["--attainment", f"{slo.attainment:g}"]
    if _scale_of(slo) != 1:
        options += [SCALE, f"{_scale_of(slo):g}"]
    return options


def _scale_of(slo: Slo) -> float:
    """By how much the limits of a named SLO were multiplied."""
    named = load(Slo, slo.name).limits.present()
    return max((slo.limits.present().get(limit, value) / value for limit, value in named.items()), default=1.0)


def _set_options(flags: Sequence[str]) -> list[str]:
    """`--max-model-len 8192` was typed as `--set max-model-len=8192`."""
    options: list[str] = []
    for word in flags:
        if word.startswith("--"):
            options += ["--set", word.removeprefix("--")]
        else:
            options[-1] += f"={word}"
    return options


def _with_values(command: Sequence[str]) -> list[str]:
    """The quoted words; an option and the value behind it are one."""
    groups: list[str] = []
    option_waits = False
    for word in command:
        is_option = word.startswith("-")
        if option_waits and not is_option:
            groups[-1] += f" {shlex.quote(word)}"
            option_waits = False
        else:
            groups.append(shlex.quote(word))
            option_waits = is_option
    return groups
