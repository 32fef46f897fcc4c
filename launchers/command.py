"""The real engine's command for a configuration: what a user pastes on his own box. Pure."""

from collections.abc import Sequence

from launchers.containers import deployed
from launchers.engine import Engine
from launchers.engines import ENGINES
from tuner.config.engine import SMALLEST_THAT_FITS, EngineSpec, Knob, KnobValue
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.plan import Plan
from tuner.configuration import Configuration


def command_of(plan: Plan, configuration: Configuration) -> tuple[str, ...]:
    """The command that deploys `configuration` of this study, without host and port."""
    words = engine_command(plan, configuration)
    image = plan.images.get(configuration.engine)
    if image is None:
        return words
    gpus = 0 if plan.box.gpu.is_cpu else configuration.gpus
    return (*deployed(ENGINES[configuration.engine], image, gpus, plan.model.path), *words[1:])


def engine_command(plan: Plan, configuration: Configuration) -> tuple[str, ...]:
    """The engine's own words: its executable first, wherever that may be."""
    spec = next(spec for spec in plan.engines if spec.name == configuration.engine)
    extra_flags = (*_context_flags(plan, ENGINES[spec.name]), *plan.extra_flags)
    return launch_command(spec, plan.model, configuration, plan.box.gpu, extra_flags)


def launch_command(
    spec: EngineSpec, model: Model, configuration: Configuration, gpu: Gpu, extra_flags: Sequence[str] = ()
) -> tuple[str, ...]:
    """Executable, model, the knobs' flags, what a CPU needs, and last, so that they win, `extra_flags`.

    The engine's own default names only what is not so by itself (the parallelism a model needs, a knob the user
    fixed); any other configuration names every knob, so that it means the same where defaults have changed.
    """
    engine = ENGINES[spec.name]
    words = [engine.executable, *engine.serve, *engine.model_flag, model.path]
    for name, value in configuration.knobs.items():
        if name not in unsaid(spec, configuration, gpu):
            words += knob_flags(spec.knobs[name], value, model)
    return (*words, *(engine.cpu_flags if gpu.is_cpu else ()), *extra_flags)


def knob_flags(knob: Knob, value: KnobValue, model: Model) -> list[str]:
    """The flags that set `knob` to `value`. `<draft.method>` and `<draft.path>` stand for the model's speculator."""
    if knob.choices is None:
        assert knob.flag, "a range has a flag: the knob would not have been read without"
        return [knob.flag, _spelt(value)]
    flags = knob.choices[str(value)]
    if model.draft is None:
        return flags
    method, path = model.draft.method, model.draft.path
    return [flag.replace("<draft.method>", method).replace("<draft.path>", path) for flag in flags]


def unsaid(spec: EngineSpec, configuration: Configuration, gpu: Gpu) -> tuple[str, ...]:
    """The knobs that the command does not name, because the engine does by itself what they say."""
    if not configuration.is_default:
        return configuration.unsaid
    knobs = configuration.knobs.items()
    own = (name for name, value in knobs if value == _unsaid(spec.knobs[name], gpu))
    return tuple(dict.fromkeys((*configuration.unsaid, *own)))


def _unsaid(knob: Knob, gpu: Gpu) -> KnobValue:
    """What the engine does if the knob is not mentioned; no engine splits a model by itself."""
    default = knob.default_on(gpu)
    return 1 if default == SMALLEST_THAT_FITS else default


def _context_flags(plan: Plan, engine: Engine) -> tuple[str, ...]:
    """A workload that says how long its requests get spares the engine room for longer ones."""
    longest = plan.workload.max_model_len
    if longest is None or engine.context_flag in plan.extra_flags or longest >= plan.model.architecture.max_context:
        return ()
    return (engine.context_flag, str(longest))


def _spelt(value: KnobValue) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.6g}"
