"""The simulated engine as a target in virtual time: a whole probe in a fraction of a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from launchers.sim.replay import Replay
from launchers.sim.scheduler import new_scheduler
from launchers.sim.settings import Policy, SimSettings, settings_of
from launchers.sim.sharing import shared_block_names
from launchers.sim.steptime import StepTime, step_time
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.plan import Plan
from tuner.config.workload import Chances
from tuner.configuration import Configuration
from tuner.engineview import EngineFacts, together
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.target import ClosedLoop, Load, Watch, Window


class VirtualTarget:
    """A simulated server that is ready to be replayed against. Deterministic, and easily pickled."""

    def __init__(self, settings: SimSettings, steps: StepTime) -> None:
        self.settings = settings
        self.steps = steps
        self._clock_s = settings.startup_s

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch | None) -> RequestLog:
        """What the simulated server makes of `requests` at `load`: see `tuner.target.Target`.

        Where nobody watches, its window may be as short as an instant.

        Data-parallel copies get the sessions in turn; their logs are shown to `watch` one copy after the other, and
        what it says of one is about that copy alone.
        """
        shares = self.settings.prefix_caching
        names = shared_block_names(requests.segments, self.settings.block_tokens) if shares else None
        logs, views = [], []
        for copy in range(self.settings.dp):
            replay = Replay(new_scheduler(self.settings, names is not None), self.steps.step_s, requests, window)
            if names is not None:
                replay.share(names)
            replay.offer(_share(load, copy, self.settings.dp), list(range(copy, requests.sessions, self.settings.dp)))
            logs.append(replay.run(watch))
            views.append(replay.view())
        log = logs[0] if len(logs) == 1 else _merged(logs)
        self._clock_s += log.ended_s
        return replace(log, engine=together(views))

    def reset_cache(self) -> None:
        """Nothing to do: every replay begins with an empty cache."""

    def facts(self) -> EngineFacts | None:
        """Nothing: it took what the configuration says."""
        return None

    def clock_s(self) -> float:
        """Virtual seconds since the server was asked to start: start-up and all replays."""
        return self._clock_s


def virtual_target(
    configuration: Configuration, model: Model, gpu: Gpu, acceptance: Chances, max_model_len: int | None = None
) -> VirtualTarget:
    """The simulated server of `configuration`. `acceptance`: the chance that a guessed token is right,
    or one for each place in a step.

    Raises ServerFailed where the real server would not start.
    """
    settings = settings_of(configuration, model, gpu, acceptance, max_model_len)
    return VirtualTarget(settings, step_time(settings, model, gpu))


def planned_settings(plan: Plan, configuration: Configuration) -> SimSettings:
    """The simulated server of `configuration` in a study. Raises ServerFailed where the real one would not start."""
    acceptance = plan.workload.acceptance.of(str(configuration.knobs.get("speculation", "off")))
    return settings_of(configuration, plan.model, plan.box.gpu, acceptance, plan.workload.max_model_len)


def under_policy(target: VirtualTarget, policy: Policy) -> VirtualTarget:
    """The same server, memory and step times under another scheduling order: for comparisons of orders."""
    return VirtualTarget(replace(target.settings, policy=policy), target.steps)


@contextmanager
def open_virtual(plan: Plan, configuration: Configuration) -> Iterator[VirtualTarget]:
    """The study's simulated server of `configuration`, with the manners of a real one: there inside the block."""
    settings = planned_settings(plan, configuration)
    calibration = plan.calibrations.get(configuration.engine)
    yield VirtualTarget(settings, step_time(settings, plan.model, plan.box.gpu, calibration))


def _share(load: Load, copy: int, copies: int) -> Load:
    """Open loops are split by session; of the users each copy gets as many as the next, and the first of each copy
    joins at once."""
    if isinstance(load, ClosedLoop):
        return ClosedLoop(len(range(copy, load.users, copies)), load.joining_s * copies)
    return load


def _merged(logs: list[RequestLog]) -> RequestLog:
    """The rows of all copies in order of due time."""
    due_s = np.concatenate([log.due_s for log in logs])
    order = np.argsort(due_s, kind="stable")
    chunks = [times for log in logs for times in np.split(log.chunk_s, log.chunk_start[1:-1])]
    sizes = np.concatenate([np.diff(log.chunk_start) for log in logs])

    def rows(name: str) -> np.ndarray:
        return np.concatenate([getattr(log, name) for log in logs])[order]

    return RequestLog(
        request=rows("request"),
        counted=rows("counted"),
        due_s=due_s[order],
        sent_s=rows("sent_s"),
        ended_at_s=rows("ended_at_s"),
        status=rows("status"),
        prompt_tokens=rows("prompt_tokens"),
        output_tokens=rows("output_tokens"),
        wanted_tokens=rows("wanted_tokens"),
        chunk_s=np.concatenate([np.zeros(0), *(chunks[row] for row in order)]),
        chunk_start=np.cumsum([0, *sizes[order]]),
        warmup_s=logs[0].warmup_s,
        window_s=logs[0].window_s,
        ended_s=max(log.ended_s for log in logs),
        errors=tuple(sorted({error for log in logs for error in log.errors})),
        stopped=next((log.stopped for log in logs if log.stopped), None),
    )
