"""Search: what Optuna is asked and told."""

import optuna
import pytest
from optuna.trial import TrialState

from tests.builders import a_crash, a_gpu, a_miss, a_model, an_outcome
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.configuration import Configuration
from tuner.errors import ConfigError
from tuner.outcome import Failure, Outcome
from tuner.search import SAMPLERS, check_sampler, parameters, sampler, suggest, tell
from tuner.space import Circumstances, Space, space

HERE = Circumstances(a_model(), a_gpu(), 8, simulated=True, real_text=False)


def spaces(*engines: str, **asked: str) -> dict[str, Space]:
    return {name: space(load(EngineSpec, name), asked, HERE) for name in engines or ("vllm",)}


def a_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())


def asked(study: optuna.Study, where: dict[str, Space], name: str = "tpe") -> tuple[optuna.Trial, Configuration]:
    study.sampler = sampler(name, where, seed=len(study.trials))
    trial = study.ask()
    return trial, suggest(trial, where)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_proposes_only_possible_configurations_and_none_twice(name: str) -> None:
    study, where = a_study(), spaces("vllm", "sglang")
    seen: list[tuple[str, tuple[tuple[str, object], ...]]] = []
    for _ in range(40):
        trial, found = asked(study, where, name)
        allowed = where[found.engine].values
        assert all(value in allowed[knob] for knob, value in found.knobs.items())
        if found.engine == "vllm":
            assert int(found.knobs["token_budget"]) >= int(found.knobs["max_batch_size"])
        seen.append((found.engine, tuple(found.knobs.items())))
        study.tell(trial, float(int(found.knobs["max_batch_size"])))
    assert len(set(seen)) == len(seen)
    assert {engine for engine, _ in seen} == {"vllm", "sglang"}


def test_a_space_that_is_exhausted_proposes_again_rather_than_hanging() -> None:
    study = a_study()
    where = spaces(**{name: _first(spaces()["vllm"], name) for name in spaces()["vllm"].values if name != "tp"})
    found = [asked(study, where)[1].knobs["tp"] for _ in range(5)]
    assert set(found) == {1, 2, 4}


def _first(where: Space, name: str) -> str:
    return str(where.values[name][-1])


def test_the_stored_parameters_are_those_that_run() -> None:
    study = a_study()
    trial, found = asked(study, spaces())
    assert trial.params["vllm.token_budget"] == found.knobs["token_budget"]
    assert trial.params["engine"] == "vllm"


def test_the_engines_default_can_be_asked_for_even_outside_a_narrowed_range() -> None:
    study, where = a_study(), spaces(token_budget="256..4096")
    study.enqueue_trial(parameters(where["vllm"].default, where["vllm"]))
    _, found = asked(study, where)
    assert found.is_default and found.knobs["token_budget"] == 8192


def test_the_sampler_learns_where_goodput_is() -> None:
    study, where = a_study(), spaces()
    for _ in range(60):
        trial, found = asked(study, where)
        study.tell(trial, -abs(float(int(found.knobs["token_budget"])) - 1024))
    late = [trial.params["vllm.token_budget"] for trial in study.trials[40:]]
    assert sum(512 <= budget <= 2048 for budget in late) > 14


@pytest.mark.parametrize(
    ("outcome", "state", "value"),
    [
        pytest.param(an_outcome(1), TrialState.COMPLETE, 6.951, id="measured"),
        pytest.param(a_miss(1), TrialState.COMPLETE, 0.0, id="misses the SLO"),
        pytest.param(a_crash(1), TrialState.COMPLETE, 0.0, id="does not start"),
        pytest.param(an_outcome(1, state="pruned"), TrialState.PRUNED, 6.951, id="pruned: its interim value"),
        pytest.param(
            an_outcome(1, state="failed", failure=Failure("void", "late")), TrialState.FAIL, None, id="void"
        ),
    ],
)
def test_every_outcome_is_told_in_its_own_way(outcome: Outcome, state: TrialState, value: float | None) -> None:
    study = a_study()
    trial, _ = asked(study, spaces())
    tell(study, trial, outcome, 0.99)
    told = study.trials[0]
    assert told.state == state
    assert told.value == (pytest.approx(value) if value is not None else None)


@pytest.mark.parametrize(
    ("outcome", "starts", "slo"), [(an_outcome(1), 0.0, 0.0), (a_miss(1), 0.0, 0.37), (a_crash(1), 1.0, 0.0)]
)
def test_infeasible_is_a_violated_constraint_not_a_goodput_of_zero(
    outcome: Outcome, starts: float, slo: float
) -> None:
    study = a_study()
    trial, _ = asked(study, spaces())
    tell(study, trial, outcome, 0.99)
    assert study.trials[0].constraints == pytest.approx({"starts": starts, "slo": slo})


def test_an_unknown_sampler_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--sampler magic: no such sampler; there is: tpe, random"):
        check_sampler("magic")


@pytest.mark.parametrize("outcome", [an_outcome(1), a_crash(1), an_outcome(1, state="pruned")])
def test_a_telling_that_was_cut_off_by_a_kill_can_be_done_again(outcome: Outcome) -> None:
    study = a_study()
    trial, _ = asked(study, spaces())
    trial.set_constraint("starts", 0.0)
    trial.report(1.0, step=1)
    tell(study, trial, outcome, 0.99)
    assert study.trials[0].state.is_finished()
