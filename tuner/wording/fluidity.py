"""Fluidity in words: how steadily the answers of default and best came, and what that means. Pure."""

from collections.abc import Callable

from tuner.config.slo import Limits
from tuner.fluidity import FLUID_INDEX, FLUID_SHARE, Fluidity
from tuner.summary import Point, Summary
from tuner.wording.comparison import Row
from tuner.wording.naming import METRICS, bound_text
from tuner.wording.numbers import number, share, wanted_share


def fluidity_rows(summary: Summary) -> tuple[Row, ...]:
    """The figures of default and best; those that neither has are left out."""
    rows = (
        _row(summary, "fluidity index", lambda fluid: fluid.mean_index, share),
        _row(summary, f"answers of index ≥ {wanted_share(FLUID_INDEX)}", lambda fluid: fluid.fluid_frac, share),
        _row(summary, "fluid token rate, tok/s per user", lambda fluid: fluid.rate_tok_s, number),
    )
    return tuple(row for row in rows if row.default or row.best)


def fluidity_meaning(limits: Limits) -> str:
    """What the figures are under these limits, after Etalon."""
    rate = (
        f"The fluid token rate is the fastest pace that {wanted_share(FLUID_SHARE)} of answers keep up with an index "
        f"of {wanted_share(FLUID_INDEX)} once their first token is there."
    )
    pace = next((name for name in ("tpot_s", "itl_s") if name in limits.present()), None)
    if pace is None:
        return (
            f"Fluidity (Etalon): the index of an answer is the share of its tokens' deadlines that it meets. {rate}"
        )
    first = f"within {bound_text(limits, 'ttft_s')}" if "ttft_s" in limits.present() else "when it comes"
    return (
        f"Fluidity (Etalon): the first token of an answer is due {first}, each other one {bound_text(limits, pace)} "
        f"({METRICS[pace]} limit) after the deadline before it, or after the token before it if that was late. The "
        f"index is the share of deadlines met. {rate} The SLO judges by none of this."
    )


def _row(
    summary: Summary, label: str, figure: Callable[[Fluidity], float | None], write: Callable[[float | None], str]
) -> Row:
    def text(point: Point | None) -> str:
        value = figure(point.fluidity) if point and point.fluidity else None
        return "" if value is None else write(value)

    return Row(label, text(summary.default), text(summary.best))
