"""What a study teaches the simulation: raw logs in, a calibration and predictions out, kept for later studies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from launchers.open import open_target
from launchers.sim.calibration import SHIPPED, SIMULATED, calibration_for, stored
from launchers.sim.steptime import step_time
from launchers.sim.virtual import VirtualTarget, planned_settings
from tests.builders import a_calibration, a_plan, a_point, a_summary, an_outcome, an_slo
from tuner.calibrate import FAR_OFF, learn
from tuner.config.calibration import Calibration
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box, Plan
from tuner.config.slo import Limits
from tuner.config.workload import Arrivals, Lengths, Workload
from tuner.configuration import Configuration
from tuner.outcome import Outcome
from tuner.predict import compared
from tuner.probe import Prober
from tuner.rawlog import read_probes, write_requests
from tuner.record import trial_folder
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.seeds import Purpose, derive
from tuner.target import ClosedLoop, Load, OpenLoop, Target, Watch, Window

pytestmark = pytest.mark.usefixtures("no_calibrations")

TRUTH = a_calibration(per_step_s=0.004, prefill_scale=1.3, decode_scale=1.15)
CONFIGURATIONS = [Configuration("vllm", {"tp": tp, "token_budget": budget}) for tp, budget in ((1, 8192), (4, 2048))]
LOADS: tuple[Load, ...] = (OpenLoop(2.0), OpenLoop(8.0))


def a_study(folder: Path, **overrides) -> Plan:
    """A study of llama-8b on real H100s, short windows."""
    values = {
        "model": load_model("llama-8b"),
        "engines": (load(EngineSpec, "vllm"),),
        "slo": an_slo(attainment=0.0, warmup_s=2.0, window_s=20.0, timeout_s=30.0),
        "workload": Workload(
            name="t", title="t", source="t", prompt=Lengths(p50=800, p90=3000, cap=6000), output=Lengths(fixed=50)
        ),
        "box": Box(load(Gpu, "h100"), tuple(range(8)), None),
        "out": folder / "a-study",
        "versions": {"vllm": "0.32.0"},
    }
    return a_plan(**values | overrides)


def servers(plan: Plan, truth: Calibration) -> list[Target]:
    """Servers of which `truth` holds."""
    settings = [planned_settings(plan, one) for one in CONFIGURATIONS]
    return [VirtualTarget(one, step_time(one, plan.model, plan.box.gpu, truth)) for one in settings]


def measured(plan: Plan, targets: list[Target], loads: tuple[Load, ...] = LOADS) -> dict[int, Outcome]:
    """The outcomes of a study of CONFIGURATIONS, its raw logs written: a search, and one window of a finalist."""
    for trial, target in enumerate(targets):
        prober = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.SEARCH))
        prober.idle()
        for load_ in loads:
            prober.measure_for(load_, plan.slo.window_s)
        folder = trial_folder(plan.out, trial)
        write_requests(folder / "requests.parquet", prober.recorded, with_chunks=True)
        again = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.CONFIRM, 1), "confirm", 1)
        again.measure_for(loads[0], plan.slo.window_s)
        write_requests(folder / "confirm" / "seed1-load2.parquet", again.recorded, with_chunks=True)
    return {trial: an_outcome(trial, CONFIGURATIONS[trial]) for trial in range(len(targets))}


def factors(one: Calibration) -> Mapping[str, float]:
    return {"per_step": one.per_step_s, "prefill": one.prefill_scale, "decode": one.decode_scale}


@pytest.mark.parametrize("loads", [LOADS, (ClosedLoop(2), ClosedLoop(24))], ids=["open", "closed"])
def test_a_study_recovers_what_its_servers_were_calibrated_to(tmp_path, loads):
    kind = "poisson" if isinstance(loads[0], OpenLoop) else "closed"
    plan = a_study(tmp_path)
    plan = replace(plan, workload=plan.workload.model_copy(update={"arrivals": Arrivals(kind=kind)}))
    lesson = learn(plan, "vllm", measured(plan, servers(plan, TRUTH), loads))
    assert lesson.calibration
    assert factors(lesson.calibration) == pytest.approx(factors(TRUTH), rel=0.12)
    found = lesson.comparison
    assert found.probes == 8
    assert found.tpot_error_before and found.tpot_error_before > 0.15
    assert found.tpot_error_after is not None and found.tpot_error_after < 0.03
    assert (found.ttft_error_after is None) == (kind == "closed")


def test_a_study_that_offers_everything_at_once_calibrates_too(tmp_path):
    """The window of those that are replayed is as short as an instant: all of them are due in the same."""
    plan = a_study(tmp_path)
    plan = replace(plan, workload=plan.workload.model_copy(update={"arrivals": Arrivals(kind="at_once")}))
    for trial, target in enumerate(servers(plan, TRUTH)):
        prober = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.SEARCH))
        prober.all_at_once(300)
        write_requests(trial_folder(plan.out, trial) / "requests.parquet", prober.recorded, with_chunks=True)
    found = learn(plan, "vllm", {0: an_outcome(0, CONFIGURATIONS[0]), 1: an_outcome(1, CONFIGURATIONS[1])}).comparison
    assert found.probes == 2
    assert found.tpot_error_before and found.tpot_error_before > 0.1
    assert found.tpot_error_after is not None and found.tpot_error_after < 0.03


def test_a_probe_is_replayed_with_its_own_requests_to_the_same_medians(tmp_path):
    prior = SHIPPED["table"]
    plan = a_study(tmp_path, calibrations={"vllm": prior})
    found = learn(plan, "vllm", measured(plan, servers(plan, prior))).comparison
    assert (found.tpot_error_before, found.ttft_error_before) == (0.0, 0.0)


@dataclass
class Curt:
    """A server that ends its answers itself, all sooner than it must."""

    target: Target

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
        ended = replace(requests, output_tokens=5 + requests.prompt_tokens % 20)
        log = self.target.replay(ended, load, window, watch)
        return replace(log, wanted_tokens=requests.output_tokens[log.request])

    def reset_cache(self) -> None:
        self.target.reset_cache()

    def facts(self) -> None:
        return None

    def clock_s(self) -> float:
        return self.target.clock_s()


@pytest.mark.parametrize("loads", [LOADS, (ClosedLoop(2), ClosedLoop(24))], ids=["open", "closed"])
def test_a_probe_whose_answers_ended_by_themselves_is_replayed_with_the_tokens_that_came(tmp_path, loads):
    prior = SHIPPED["table"]
    plan = a_study(tmp_path, calibrations={"vllm": prior})
    kind = "poisson" if isinstance(loads[0], OpenLoop) else "closed"
    plan = replace(plan, workload=plan.workload.model_copy(update={"arrivals": Arrivals(kind=kind)}))
    found = learn(plan, "vllm", measured(plan, [Curt(one) for one in servers(plan, prior)], loads)).comparison
    assert found.tpot_error_before == pytest.approx(0.0, abs=0.002)
    assert found.ttft_error_before == (None if kind == "closed" else pytest.approx(0.0, abs=0.002))


def test_what_was_learned_is_kept_under_the_engine_s_version_and_used_by_the_next_simulation(tmp_path):
    plan = a_study(tmp_path)
    outcomes = measured(plan, servers(plan, TRUTH))
    summary = compared(plan, a_summary(default=None, best=None, frontier=()), outcomes)
    (kept,) = stored()
    assert (kept.engine, kept.version, kept.model, kept.gpu) == ("vllm", "0.32.0", "llama-8b", "h100")
    assert summary.simulation[0].kept and Path(summary.simulation[0].kept).is_file()
    assert kept.title == "calibrated on 8 probes of a-study"
    assert calibration_for("vllm", "llama-8b", "h100", version=None) == kept


def test_a_point_is_predicted_by_the_simulation_as_it_was_before_the_study(tmp_path):
    point = a_point(engine="vllm", configuration={"tp": 1}, load={"rate_rps": 4.0})
    before = a_study(tmp_path, calibrations={"vllm": TRUTH})
    summary = compared(before, a_summary(default=None, best=point, frontier=(point,)), {})
    assert summary.best and summary.best.predicted
    predicted = summary.best.predicted
    assert summary.frontier[0].predicted == predicted
    assert predicted.by.endswith("calibrated on 34 probes of a-study")
    target = servers(before, TRUTH)[0]
    prober = Prober(target, before.workload, before.slo, derive(before.seed, Purpose.CONFIRM))
    found = prober.measure_for(OpenLoop(4.0), before.slo.deciding_requests / 4.0)
    assert predicted.tpot_s == found.tpot_s
    assert predicted.goodput_rps_per_gpu == found.goodput_rps


def test_an_uncalibrated_roofline_predicts_nothing_says_so_and_learns(tmp_path):
    plan = a_study(tmp_path, model=load_model("tiny"))
    outcomes = measured(plan, servers(plan, TRUTH.model_copy(update={"over": "roofline"}))[:1])
    point = a_point(engine="vllm", configuration={"tp": 1}, load={"rate_rps": 4.0})
    summary = compared(plan, a_summary(default=None, best=point, frontier=()), outcomes)
    assert summary.best and summary.best.predicted is None
    assert summary.simulation[0].why and "roofline" in summary.simulation[0].why
    assert [one.over for one in stored()] == ["roofline"]


def test_probes_that_speculate_or_were_stopped_teach_nothing(tmp_path):
    plan = a_study(tmp_path)
    outcomes = measured(plan, servers(plan, TRUTH))
    guessing = {
        trial: replace(
            one, configuration=Configuration("vllm", {**one.configuration.knobs, "speculation": "ngram-3"})
        )
        for trial, one in outcomes.items()
    }
    spoilt = {trial: replace(one, state="failed") for trial, one in outcomes.items()}
    for useless in (guessing, spoilt, {}):
        lesson = learn(plan, "vllm", useless)
        assert lesson.calibration is None
        assert lesson.comparison.why


def test_a_simulation_that_is_far_off_even_when_fitted_is_not_kept(tmp_path):
    """Nothing that the simulation knows of makes the second server a hundred times slower than the first."""
    plan = a_study(tmp_path)
    targets = [servers(plan, TRUTH)[0], servers(plan, TRUTH.model_copy(update={"per_step_s": 0.4}))[1]]
    lesson = learn(plan, "vllm", measured(plan, targets, (OpenLoop(0.5),)))
    assert lesson.comparison.tpot_error_after and lesson.comparison.tpot_error_after > FAR_OFF
    assert lesson.calibration is None


def test_raw_logs_that_cannot_be_read_spoil_nothing(tmp_path):
    plan = a_study(tmp_path)
    outcomes = measured(plan, servers(plan, TRUTH))
    (trial_folder(plan.out, 0) / "requests.parquet").write_bytes(b"PAR1 cut off")
    before = a_summary()
    summary = compared(plan, before, outcomes)
    assert summary.verdict == before.verdict
    assert summary.simulation[0].why and summary.simulation[0].why.startswith("not compared: ")
    assert not list(stored())


def test_a_folder_that_cannot_be_written_spoils_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    plan = a_study(tmp_path)
    summary = compared(plan, a_summary(), measured(plan, servers(plan, TRUTH)))
    assert summary.simulation[0].kept is None
    assert summary.simulation[0].why and "could not be kept" in summary.simulation[0].why


def test_timings_are_read_back_as_they_were_written(tmp_path):
    plan = a_study(tmp_path)
    measured(plan, servers(plan, TRUTH)[:1])
    idle, slow, fast = read_probes(trial_folder(plan.out, 0) / "requests.parquet")
    assert (idle.stage, idle.load, len(idle.request)) == ("idle", ClosedLoop(1), 12)
    assert (slow.load, fast.load) == LOADS
    assert slow.is_whole and slow.ended_well[slow.counted].all()
    assert (slow.due_s[slow.counted] >= plan.slo.warmup_s).all()


def test_a_served_simulation_does_what_is_predicted_of_it(tmp_path):
    """Real processes, real time, under a calibration that is far from the shipped one."""
    slow = TRUTH.model_copy(update={"per_step_s": 0.02})
    slo = an_slo(attainment=0.0, limits=Limits(ttft_s=10.0), warmup_s=0.5, window_s=3.0, timeout_s=20.0)
    box = Box(load(Gpu, "h100"), (0,), "served")
    plan = a_study(tmp_path, slo=slo, box=box, versions={}, calibrations={"vllm": slow})
    folder = trial_folder(plan.out, 0)
    with open_target(plan, CONFIGURATIONS[0], (0,), folder) as target:
        prober = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.SEARCH))
        prober.measure_for(OpenLoop(6.0), plan.slo.window_s)
    write_requests(folder / "requests.parquet", prober.recorded, with_chunks=True)
    lesson = learn(plan, "vllm", {0: an_outcome(0, CONFIGURATIONS[0])})
    assert lesson.comparison.tpot_error_before is not None and lesson.comparison.tpot_error_before < 0.3
    assert lesson.comparison.calibration and lesson.comparison.calibration.version == SIMULATED
    assert lesson.calibration is None, "a simulation teaches nothing about the engine"
