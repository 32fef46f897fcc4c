"""Search: how Optuna proposes the next configuration, and how it is told what came of it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tuner.config.engine import KnobValue
from tuner.configuration import Configuration
from tuner.errors import ConfigError
from tuner.outcome import Outcome
from tuner.space import Space, configuration, repaired

ENGINE = "engine"
STARTUP_TRIALS = 12
REDRAWS = 20


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed=seed),
}


class GridSampler(BaseSampler):
    """Another sampler, made to propose only possible configurations that have not been tried yet.

    Its proposals are moved to the knobs' grids and inside the engines' arithmetic before Optuna stores them, so
    that the stored parameters are those that run. A proposal already in the study is drawn again, at last at random.
    """

    def __init__(self, inner: BaseSampler, spaces: Mapping[str, Space], seed: int) -> None:
        self._inner = inner
        self._spaces = spaces
        self._distributions = distributions(spaces)
        self._random = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Everything: the whole space is known beforehand."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One new possible proposal; where all have been tried, one of them again."""
        tried = {_key(other.params) for other in study.get_trials(deepcopy=False) if other.number != trial.number}
        for attempt in range(REDRAWS):
            proposal = self._draw(study, trial) if attempt < REDRAWS // 2 else self._at_random()
            if _key(proposal) not in tried:
                break
        return proposal

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never asked for: `sample_relative` proposes every parameter."""
        raise AssertionError(f"{param_name} is not in the space")

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Pass on."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on."""
        self._inner.after_trial(study, trial, state, values)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        seen = self._inner.infer_relative_search_space(study, trial)
        drawn = self._inner.sample_relative(study, trial, seen) if seen else {}
        return self._possible({**self._at_random(), **drawn}) if drawn else self._at_random()

    def _at_random(self) -> dict[str, Any]:
        names = list(self._spaces)
        raw: dict[str, Any] = {ENGINE: names[int(self._random.integers(len(names)))]}
        for engine, space in self._spaces.items():
            for name, allowed in _searched(space).items():
                raw[f"{engine}.{name}"] = allowed[int(self._random.integers(len(allowed)))]
        return self._possible(raw)

    def _possible(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """`raw` without the other engines' knobs, every value possible, and one spelling for each configuration."""
        space = self._spaces[str(raw[ENGINE])]
        chosen = {name: raw[f"{space.engine.name}.{name}"] for name in _searched(space)}
        return parameters(configuration(space, repaired(chosen, space)), space)


def check_sampler(name: str) -> None:
    """Raises ConfigError if there is no sampler called `name`."""
    if name not in SAMPLERS:
        raise ConfigError(f"--sampler {name}: no such sampler; there is: {', '.join(SAMPLERS)}")


def sampler(name: str, spaces: Mapping[str, Space], seed: int) -> BaseSampler:
    """The sampler called `name`, one of SAMPLERS."""
    return GridSampler(SAMPLERS[name](seed), spaces, seed)


def distributions(spaces: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """One Optuna distribution for the engine and for each searched knob, wide enough for the engine's default."""
    found: dict[str, BaseDistribution] = {ENGINE: CategoricalDistribution(tuple(spaces))}
    for engine, space in spaces.items():
        for name, allowed in _searched(space).items():
            found[f"{engine}.{name}"] = _distribution(allowed, space.default.knobs.get(name, allowed[0]), space, name)
    return found


def parameters(of: Configuration, space: Space) -> dict[str, KnobValue]:
    """`of` as Optuna parameters; knobs whose condition does not hold take their first value."""
    searched = _searched(space)
    values = {f"{of.engine}.{name}": of.knobs.get(name, allowed[0]) for name, allowed in searched.items()}
    return {ENGINE: of.engine, **values}


def suggest(trial: optuna.Trial, spaces: Mapping[str, Space]) -> Configuration:
    """Ask `trial` for one configuration."""
    known = distributions(spaces)
    engine = _suggest(trial, ENGINE, known[ENGINE])
    space = spaces[engine]
    chosen = {name: _suggest(trial, f"{engine}.{name}", known[f"{engine}.{name}"]) for name in _searched(space)}
    found = configuration(space, chosen)
    return space.default if found.knobs == space.default.knobs else found


def tell(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, attainment_wanted: float) -> None:
    """Tell Optuna what came of `trial`.

    A configuration that does not start is a violated constraint, never a failed trial (samplers ignore those) and
    never the goodput 0 of a healthy one; one that misses the SLO violates a constraint by how much it misses.
    """
    match outcome.state:
        case "failed":
            study.tell(trial, state=TrialState.FAIL)
        case "infeasible":
            _constrain(study, trial, {"starts": 1.0, "slo": 0.0})
            study.tell(trial, 0.0)
        case "pruned":
            _constrain(study, trial, {"starts": 0.0, "slo": 0.0})
            _report(study, trial, outcome.value_rps_per_gpu)
            study.tell(trial, state=TrialState.PRUNED)
        case "measured":
            reached = outcome.best.attainment if outcome.best else 0.0
            missing = 0.0 if outcome.holds_slo else max(attainment_wanted - reached, 1e-6)
            _constrain(study, trial, {"starts": 0.0, "slo": missing})
            study.tell(trial, outcome.value_rps_per_gpu)


def _constrain(study: optuna.Study, trial: optuna.Trial, constraints: Mapping[str, float]) -> None:
    """Set what is not set yet: a tuner may have been killed between two of these writes and the telling."""
    known = study.get_trials(deepcopy=False)[trial.number].constraints
    for key, value in constraints.items():
        if key not in known:
            trial.set_constraint(key, value)


def _report(study: optuna.Study, trial: optuna.Trial, interim: float) -> None:
    """Report the interim value, once."""
    if not study.get_trials(deepcopy=False)[trial.number].intermediate_values:
        trial.report(interim, step=1)


def _searched(space: Space) -> dict[str, tuple[KnobValue, ...]]:
    return {name: allowed for name, allowed in space.values.items() if len(allowed) > 1}


def _distribution(allowed: tuple[KnobValue, ...], default: KnobValue, space: Space, name: str) -> BaseDistribution:
    options = (*allowed, default)
    if any(isinstance(option, bool | str) for option in options):
        return CategoricalDistribution(tuple(dict.fromkeys(options)))
    numbers = [option for option in options if isinstance(option, int | float)]
    log = space.engine.knobs[name].scale == "log2"
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)), log=log)
    return FloatDistribution(min(numbers), max(numbers), log=log)


def _suggest(trial: optuna.Trial, name: str, known: BaseDistribution) -> Any:
    match known:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, known.choices)
        case IntDistribution():
            return trial.suggest_int(name, known.low, known.high, log=known.log)
        case FloatDistribution():
            return trial.suggest_float(name, known.low, known.high, log=known.log)
        case _:
            raise AssertionError(known)


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))
