"""The table of all configurations: one row a trial, best first, with its state in a word. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.config.plan import Plan
from tuner.outcome import Outcome
from tuner.report.dots import offered_per_gpu
from tuner.report.study import Cast
from tuner.wording.comparison import at_percentile, percentile_name
from tuner.wording.naming import METRICS, Naming, differences, ending, short, title, value_text, worth, worth_text
from tuner.wording.numbers import DASH, device, latency, number, share


@dataclass(frozen=True)
class Cell:
    """A text and what it is sorted by; numbers stand to the right. `is_default`: a knob left as the engine has it."""

    text: str
    key: float | str
    is_number: bool = True
    is_default: bool = False

    @property
    def sort_key(self) -> str:
        """As the page's script compares it."""
        return f"{self.key:.6g}" if isinstance(self.key, float) else str(self.key)


@dataclass(frozen=True)
class TableRow:
    """One trial. `state` is the word the filters go by, `detail` what explains a failure, by its log."""

    trial: int
    name: str
    role: str
    state: str
    cells: tuple[Cell, ...]
    detail: str


@dataclass(frozen=True)
class Table:
    """`headings` go with the cells of a row."""

    headings: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """The states that occur, in the order of the rows."""
        return tuple(dict.fromkeys(row.state for row in self.rows))


def table_of(outcomes: Sequence[Outcome], cast: Cast, naming: Naming, plan: Plan) -> Table:
    """All trials, the best first."""
    knobs = _turned(outcomes)
    which, per = percentile_name(plan.slo.attainment), device(plan)
    metrics = list(plan.slo.limits.present()) or ["ttft_s", "tpot_s"]
    headings = (
        "id", "ended", f"goodput req/s/{per}", f"at load /{per}", "in SLO",
        *(f"{METRICS[name]} {which}" for name in metrics), "tok/s/user", "fluid tok/s", f"tok/s/{per}",
        *(["engine"] if naming.names_engine else []), *(short(knob) for knob in knobs),
    )  # fmt: skip
    ranked = sorted(outcomes, key=worth)
    rows = tuple(_row(outcome, cast, naming, (knobs, metrics, plan.slo.attainment)) for outcome in ranked)
    return Table(headings, rows)


def _turned(outcomes: Sequence[Outcome]) -> list[str]:
    """The knobs that do not have the same value everywhere."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.configuration.knobs)
    return [name for name in names if len({outcome.configuration.knobs.get(name) for outcome in outcomes}) > 1]


def _row(
    outcome: Outcome, cast: Cast, naming: Naming, columns: tuple[Sequence[str], Sequence[str], float]
) -> TableRow:
    knobs, metrics, attainment = columns
    configuration = outcome.configuration
    state, glyph = _state(outcome)
    cells = [
        Cell(cast.name(outcome.trial), outcome.trial, is_number=False),
        Cell(f"{glyph} {ending(outcome)}", state, is_number=False),
        *_results(outcome, metrics, attainment),
    ]
    if naming.names_engine:
        cells.append(Cell(configuration.engine, configuration.engine, is_number=False))
    turned = differences(naming, configuration.engine, configuration.knobs)
    for name in knobs:
        value = configuration.knobs.get(name)
        text = DASH if value is None else value_text(value)
        cells.append(Cell(text, -1 if value is None else value, is_default=name not in turned))
    name = title(naming, configuration.engine, configuration.knobs)
    return TableRow(outcome.trial, name, cast.role(outcome.trial), state, tuple(cells), _detail(outcome))


def _results(outcome: Outcome, metrics: Sequence[str], attainment: float) -> list[Cell]:
    """What the trial's best probe gave; dashes where there is none."""
    goodput = Cell(worth_text(outcome), outcome.value_rps_per_gpu if outcome.holds_slo else -1)
    best = outcome.best
    if best is None:
        return [goodput] + [Cell(DASH, -1)] * (len(metrics) + 5)
    seen = [at_percentile(best, name, attainment) for name in metrics]
    return [
        goodput,
        _number(offered_per_gpu(outcome, best)),
        Cell(share(best.attainment), best.attainment),
        *(Cell(latency(value), -1 if value is None else value) for value in seen),
        _number(best.tok_s_per_user),
        _number(best.fluidity.rate_tok_s if best.fluidity else None),
        _number(best.throughput_tok_s / outcome.configuration.gpus),
    ]


def _state(outcome: Outcome) -> tuple[str, str]:
    if outcome.state == "infeasible":
        return "infeasible", "✕"
    if outcome.state == "failed":
        return "failed", "✕"
    if outcome.state == "pruned":
        return "stopped early", "○"
    return ("in SLO", "✓") if outcome.holds_slo else ("misses SLO", "▽")


def _detail(outcome: Outcome) -> str:
    if outcome.failure is None:
        return ""
    failure = outcome.failure
    return " · ".join(part for part in (failure.message, failure.before, failure.evidence, failure.log) if part)


def _number(value: float | None) -> Cell:
    return Cell(number(value), -1 if value is None else value)
