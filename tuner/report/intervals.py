"""The finalists side by side: the interval of each one's goodput, its mean, and a dot for each fresh seed."""

import altair as alt

from tuner.finalvalue import Value
from tuner.report.charts import Picture, Size, row_link, svg
from tuner.report.study import Study
from tuner.wording.numbers import device, number

ROW_HEIGHT = 46
WIDE_WIDTH, NARROW_WIDTH = 870, 240


def intervals(study: Study) -> Picture:
    """The finalists' goodputs, the best on top. `study.values` must not be empty."""
    values = sorted(study.values.values(), key=lambda value: -value.mean)
    height = ROW_HEIGHT * len(values)
    chart = alt.layer(*[layer for value in values for layer in _row(value, study)])
    return Picture(
        svg(chart, Size(WIDE_WIDTH, height)),
        svg(chart, Size(NARROW_WIDTH, height)),
    )


def _row(value: Value, study: Study) -> list[alt.Chart]:
    per, cast = device(study.plan), study.cast
    colour = f"var(--{cast.role(value.trial)})"
    name, (low, high) = cast.name(value.trial), value.ci95 or (value.mean, value.mean)
    x = alt.X("x:Q", title=f"goodput, req/s per {per}", axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=False))
    y = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelPadding=10))
    bar = alt.Chart(alt.InlineData([{"name": name, "x": low, "x2": high}])).encode(x=x, x2="x2:Q", y=y)
    mean = alt.Chart(alt.InlineData([{"name": name, "x": value.mean}])).encode(x=x, y=y)
    seeds = [
        {
            "name": name, "x": each, "row": row_link(value.trial, stops=True),
            "label": f"{name}: {number(each)} req/s per {per} on fresh seed {seed + 1} of {len(value.per_seed)}",
        }
        for seed, each in sorted(value.per_seed.items())
    ]  # fmt: skip
    shape = "square" if cast.role(value.trial) == "default" else "diamond"
    dots = alt.Chart(alt.InlineData(seeds)).encode(x=x, y=y, description="label:N", href="row:N")
    return [
        bar.mark_bar(height=16, fill=colour, opacity=0.22, aria=False),
        mean.mark_tick(thickness=2.5, size=24, color=colour, aria=False),
        dots.mark_point(shape=shape, size=50, stroke=colour, fill=colour, strokeWidth=1.3, opacity=1),
    ]
