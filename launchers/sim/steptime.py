"""How long one step of an engine takes: what is in the batch flows in, seconds flow out. Pure.

Two sources: tables made from measured kernels (`launchers.sim.steptable`), and a roofline for any other model or
GPU. Called hundreds of thousands of times a second, so plain lists and floats only.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from launchers.sim.calibration import SHIPPED
from launchers.sim.roofline import roofline
from launchers.sim.settings import SimSettings
from launchers.sim.steptable import StepTable, find_table, table_key
from tuner.config.calibration import Calibration, StepSource
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture, Model

DRAFT_LAUNCH_S = 2e-4
"""Starting one pass of a draft model: an assumption."""

StepSeconds = Callable[[int, int, int, int, int], float]
"""`StepTime.step_s`."""

Line = tuple[list[float], list[float]]
"""A piecewise linear function over a grid: in cell j it is `line[0][j] + line[1][j] * x`."""


class StepTime(Protocol):
    """The step time of one server at one tensor-parallel size."""

    @property
    def source(self) -> str:
        """Where the figures come from, for reports."""
        ...

    @property
    def is_calibrated(self) -> bool:
        """Whether to believe it before anything was measured: tables are made of measurements, rooflines are not."""
        ...

    @property
    def per_step_s(self) -> float:
        """The part of every step that is the engine's own work, whatever is in the batch."""
        ...

    def step_s(
        self,
        prefill_tokens: int,
        prefill_kv_tokens: int,
        prefill_requests: int,
        decode_requests: int,
        decode_kv_tokens: int,
    ) -> float:
        """Seconds for a step over `prefill_tokens` new prompt tokens of `prefill_requests` requests that have
        `prefill_kv_tokens` in the cache already, and one step of `decode_requests` with `decode_kv_tokens` in the
        cache. Sums over the requests, not averages."""
        ...


@dataclass(frozen=True)
class Drafting:
    """What speculation does to a step: `width` tokens are fed per answer (1 + guesses), guessing takes `draft_s`."""

    width: int = 1
    draft_s: float = 0.0


NO_DRAFTS = Drafting()


class TableSteps:
    """Interpolates a StepTable; linear between grid points and beyond the last one.

    The calibration is part of the lines that are interpolated. A decoding request feeds `drafting.width` tokens per
    step.
    """

    def __init__(
        self, table: StepTable, calibration: Calibration, source: str, drafting: Drafting = NO_DRAFTS
    ) -> None:
        self.source = source
        self.is_calibrated = True
        self.per_step_s = calibration.per_step_s
        self._width = drafting.width
        self._draft_s = drafting.draft_s
        self._prefill_scale = calibration.prefill_scale * 1e-3
        self._decode_scale = calibration.decode_scale * 1e-3
        self._table = table
        self._tokens, self._context = table["mixed_tokens"], table["context"]
        # Where the cells of context meet: the first and the last go on beyond the grid.
        self._context_borders = self._context[1:-1]
        self._mixed = _line(table["mixed_tokens"], _scaled(table["mixed_linear"], self._prefill_scale))
        self._decode = _line(table["decode_tokens"], _scaled(table["decode_linear"], self._decode_scale))
        self._attention: dict[int, Line] = {}
        self._decode_step: dict[int, Line] = {}

    def step_s(
        self,
        prefill_tokens: int,
        prefill_kv_tokens: int,
        prefill_requests: int,
        decode_requests: int,
        decode_kv_tokens: int,
    ) -> float:
        """Seconds of one step: see `StepTime`."""
        if not prefill_requests:
            line = self._decode_step.get(decode_requests) or self._decode_line(decode_requests)
            context = decode_kv_tokens / decode_requests
            j = bisect_right(self._context_borders, context)
            return line[0][j] + line[1][j] * context
        step_s = self.per_step_s + _at(self._tokens, self._mixed, prefill_tokens + decode_requests * self._width)
        if decode_requests:
            attention = self._attention.get(decode_requests) or self._attention_line(decode_requests)
            step_s += self._draft_s + _at(self._context, attention, decode_kv_tokens / decode_requests)
        tokens, cached = prefill_tokens / prefill_requests, prefill_kv_tokens / prefill_requests
        return step_s + self._prefill_attention_s(prefill_requests, tokens, cached)

    def _decode_line(self, requests: int) -> Line:
        """The whole step of a pure decode batch over context, kept for the next time."""
        linear_s = _at(self._table["decode_tokens"], self._decode, requests * self._width)
        fixed_s = self.per_step_s + self._draft_s + linear_s
        intercepts, slopes = self._attention.get(requests) or self._attention_line(requests)
        line = ([fixed_s + intercept for intercept in intercepts], slopes)
        self._decode_step[requests] = line
        return line

    def _attention_line(self, requests: int) -> Line:
        rows = self._table["decode_attention"]
        i, part = _cell(self._table["decodes"], requests)
        mixed = [low + part * (high - low) for low, high in zip(rows[i], rows[i + 1], strict=True)]
        line = _line(self._context, _scaled(mixed, self._decode_scale))
        self._attention[requests] = line
        return line

    def _prefill_attention_s(self, requests: int, tokens: float, cached: float) -> float:
        table = self._table["prefill_attention"]
        i, i_part = _cell(self._table["chunk_requests"], requests)
        j, j_part = _cell(self._table["chunks"], tokens)
        k, k_part = _cell(self._table["cached"], cached)
        few = _between(table[i], j, j_part, k, k_part)
        if not i_part:
            return few * self._prefill_scale
        many = _between(table[i + 1], j, j_part, k, k_part)
        return (few + i_part * (many - few)) * self._prefill_scale


def step_time(
    settings: SimSettings,
    model: Model,
    gpu: Gpu,
    calibration: Calibration | None = None,
    over: StepSource | None = None,
) -> StepTime:
    """The step time of a server: a table where this model and engine have one for this GPU, else a roofline; `over`
    a roofline in any case, if that is said.

    Calibrated as is shipped, unless `calibration` says otherwise. A calibration over the other kind of step times
    says nothing here: the shipped one takes its place.
    """
    found = _table_of(settings, model, gpu) if over != "roofline" else None
    kind: StepSource = "table" if found else "roofline"
    used = calibration if calibration and calibration.over == kind else SHIPPED[kind]
    if found is None:
        plain = roofline(model.architecture, gpu, settings.tp, settings.kv_dtype_bytes, used)
        drafting = _drafting(settings, model.architecture, plain, used)
        return replace(plain, width=drafting.width, draft_s=drafting.draft_s)
    table, source = found
    said = f"{source}, {used.title}"
    drafting = _drafting(settings, model.architecture, TableSteps(table, used, said), used)
    return TableSteps(table, used, said, drafting)


def step_source(settings: SimSettings, model: Model, gpu: Gpu) -> StepSource:
    """Which kind of step time this server has."""
    return "table" if _table_of(settings, model, gpu) else "roofline"


def _table_of(settings: SimSettings, model: Model, gpu: Gpu) -> tuple[StepTable, str] | None:
    """The table of this server, shipped or made on this machine, and its source; None where there is none."""
    key = table_key(settings.engine, gpu.name, model.architecture, settings.tp, settings.kv_dtype_bytes)
    table = find_table(key) if key else None
    return (table, key.source) if key and table else None


def _drafting(
    settings: SimSettings, architecture: Architecture, plain: StepTime, calibration: Calibration
) -> Drafting:
    """A drafter is taken to be one layer and an output head, as EAGLE's are; n-grams are looked up for nothing."""
    if not settings.draft_model:
        return Drafting(1 + settings.drafts)
    layer = architecture.parameters / architecture.layers
    head = architecture.vocab * architecture.hidden
    share = min(1.0, (layer + head) / architecture.parameters)
    kernels_s = plain.step_s(0, 0, 0, 1, 1) - calibration.per_step_s
    pass_s = DRAFT_LAUNCH_S + share * kernels_s
    return Drafting(1 + settings.drafts, settings.drafts * pass_s)


def _scaled(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def _line(grid: list[int], values: list[float]) -> Line:
    slopes = [(values[j + 1] - values[j]) / (grid[j + 1] - grid[j]) for j in range(len(grid) - 1)]
    return [values[j] - slopes[j] * grid[j] for j in range(len(slopes))], slopes


def _at(grid: list[int], line: Line, x: float) -> float:
    j = bisect_right(grid, x, 1, len(grid) - 1) - 1
    return line[0][j] + line[1][j] * x


def _cell(grid: list[int], x: float) -> tuple[int, float]:
    """The cell of `grid` that holds `x`, and how far into it `x` lies (above 1 beyond the grid)."""
    j = bisect_right(grid, x, 1, len(grid) - 1) - 1
    return j, (x - grid[j]) / (grid[j + 1] - grid[j])


def _between(plane: list[list[float]], j: int, j_part: float, k: int, k_part: float) -> float:
    low, high = plane[j], plane[j + 1]
    at_low = low[k] + k_part * (low[k + 1] - low[k])
    return at_low + j_part * (high[k] + k_part * (high[k + 1] - high[k]) - at_low)
