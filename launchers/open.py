"""Which target a study measures: a real engine, or its simulation, as a server process or in virtual time."""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from launchers.command import command_of, engine_command
from launchers.containers import Container, container_name, removal, supervised
from launchers.cpu import engine_cores, usable_cores
from launchers.engine import Engine
from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.served import SILENCE_LIMIT_S, Serving, open_served
from launchers.sim.commandline import spelt_chances
from launchers.vacancy import Vacancy
from tuner.config.catalog import names
from tuner.config.model import Model
from tuner.config.plan import Plan
from tuner.config.workload import Chances
from tuner.configuration import Configuration
from tuner.load.validity import tolerance_of
from tuner.target import Target

# Of a request's time: those that met the silence have timed out, and are known to be bad.
SILENCE_SHARE = 1.25
LOG_NAME = "server.log"
SIMULATED_SERVER = (sys.executable, "-m", "launchers.sim.server")


def open_target(
    plan: Plan, configuration: Configuration, gpus: tuple[int, ...], folder: Path
) -> AbstractContextManager[Target]:
    """A server of `configuration` on `gpus`, ready inside the block and gone behind it; its log goes to `folder`.

    Raises ServerFailed, EngineMissing, BoxUnusable.
    """
    match plan.box.simulation:
        case "virtual":
            from launchers.sim.virtual import open_virtual

            return open_virtual(plan, configuration)
        case "served":
            return open_served(_simulated(plan, configuration, folder))
        case None:
            return open_served(_real(plan, configuration, gpus, folder))


def _real(plan: Plan, configuration: Configuration, gpus: tuple[int, ...], folder: Path) -> Serving:
    engine = ENGINES[configuration.engine]
    if configuration.engine in plan.images:
        return _in_container(plan, configuration, gpus, folder)
    executable = find_executable(engine, plan.executables)
    command = (str(executable), *engine_command(plan, configuration)[1:])
    if plan.box.gpu.is_cpu:
        serving = _serving(engine, plan, command, folder, _cpu_environment(engine, plan))
        return replace(serving, cores=engine_cores(usable_cores()))
    serving = _serving(engine, plan, command, folder, _gpu_environment(gpus))
    return replace(serving, vacancy=_vacancy(plan, gpus))


def _in_container(plan: Plan, configuration: Configuration, gpus: tuple[int, ...], folder: Path) -> Serving:
    """The docker client is the server's process here; what it asked for is removed behind it."""
    engine = ENGINES[configuration.engine]
    name = container_name(plan.study, folder.name)
    env = _cpu_environment(engine, plan) if plan.box.gpu.is_cpu else {}
    seen = () if plan.box.gpu.is_cpu else gpus
    variables = {**engine.measuring_env, **env}
    container = Container(name, seen, variables)
    client = supervised(engine, plan.images[engine.name], plan.model.path, container)
    command = (*client, *engine_command(plan, configuration)[1:])
    serving = _serving(engine, plan, command, folder, env)
    return replace(serving, farewell=removal(name), vacancy=_vacancy(plan, gpus))


def _simulated(plan: Plan, configuration: Configuration, folder: Path) -> Serving:
    engine = ENGINES[configuration.engine]
    hidden = {
        "--sim-model": plan.model.name if plan.model.name in names(Model) else plan.model.path,
        "--sim-gpu": plan.box.gpu.name,
        "--sim-acceptance": spelt_chances(_acceptance(plan, configuration)),
    }
    calibration = plan.calibrations.get(configuration.engine)
    if calibration:
        hidden["--sim-calibration"] = calibration.model_dump_json()
    words = (word for flag in hidden.items() for word in flag)
    command = (*SIMULATED_SERVER, *command_of(plan, configuration), *words)
    return _serving(engine, plan, command, folder, {})


def _acceptance(plan: Plan, configuration: Configuration) -> Chances:
    return plan.workload.acceptance.of(str(configuration.knobs.get("speculation", "off")))


def _serving(engine: Engine, plan: Plan, command: tuple[str, ...], folder: Path, env: Mapping[str, str]) -> Serving:
    return Serving(
        engine=engine,
        command=command,
        model=plan.model.name,
        vocab=plan.model.architecture.vocab,
        log=folder / LOG_NAME,
        env=env,
        port=plan.port or 0,
        ready_timeout_s=plan.start_timeout_s,
        silence_limit_s=min(SILENCE_LIMIT_S, SILENCE_SHARE * plan.slo.timeout_s),
        tolerance=tolerance_of(plan.slo),
    )


def _vacancy(plan: Plan, gpus: tuple[int, ...]) -> Vacancy:
    """These GPUs have to be as they were when the study began. On a CPU nothing is known of any."""
    return Vacancy({gpu: plan.box.idle_gib[gpu] for gpu in gpus if gpu in plan.box.idle_gib})


def _gpu_environment(gpus: tuple[int, ...]) -> dict[str, str]:
    # CUDA numbers the fastest first unless told to count as nvidia-smi does.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}


def _cpu_environment(engine: Engine, plan: Plan) -> dict[str, str]:
    chosen = {name: value for name, value in engine.cpu_env.items() if name not in os.environ}
    # A model in a folder needs no hub, and without one the engine would wait for it.
    return chosen | ({"HF_HUB_OFFLINE": "1"} if Path(plan.model.path).is_dir() else {})
