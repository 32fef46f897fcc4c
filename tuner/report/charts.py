"""Dots as pictures: altair draws them, vl-convert makes them static SVG whose colours are the page's variables."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from tuner.report.dots import Dot
from tuner.report.study import Role

ROLES: tuple[Role, ...] = ("deploy", "default", "other", "failed")
CROSS = "M-0.8,-0.8L0.8,0.8M0.8,-0.8L-0.8,0.8"
SHAPES = ("diamond", "square", "circle", CROSS)
SIZES: Mapping[Role, int] = {"deploy": 100, "default": 70, "other": 30, "failed": 60}
RIGHT_END = 0.85
"""Share of the x axis behind which a word has no room to the right of its dot."""

DOT_STROKE = ' stroke-width="1.3"'
"""Taken out again, as the page's style says it once for all dots."""
# vl-convert resolves links against this address; ours lead to rows of the same page.
LINKED_MARK = (
    r'<a xlink:href="https://vega\.github\.io/vega-datasets/#t(?P<trial>\d+)(?P<skip>-?)">'
    r'<path aria-label="(?P<label>[^"]*)"'
    r' role="graphics-symbol" aria-roledescription="\w+"'
)


@dataclass(frozen=True)
class Size:
    """Of the drawing area, in pixels."""

    width: int
    height: int


WIDE, NARROW = Size(930, 300), Size(300, 240)


@dataclass(frozen=True)
class Axes:
    """The titles of a figure's axes; `y_domain` where it is not from 0 to the highest dot."""

    x: str
    y: str
    y_domain: tuple[float, float] | None = None
    x_zero: bool = True


@dataclass(frozen=True)
class Level:
    """A horizontal line with a word at its end."""

    y: float
    word: str


@dataclass(frozen=True)
class Drawing:
    """What a figure shows, from back to front: lines through dots of one trial, a staircase, a level, the dots."""

    axes: Axes
    dots: Sequence[Dot]
    lines: Sequence[Sequence[Dot]] = ()
    stairs: Sequence[tuple[float, float]] = ()
    stairs_style: Literal["step-before", "step-after"] = "step-after"
    level: Level | None = None
    words: Sequence[tuple[Dot, str]] = ()


@dataclass(frozen=True)
class Picture:
    """One figure drawn for a wide and for a narrow page."""

    wide: str
    narrow: str


def picture(drawing: Drawing) -> Picture:
    """`drawing` as SVG in two sizes."""
    chart = alt.layer(*_stairs(drawing), *_lines(drawing), *_level(drawing), _dots(drawing), *_words(drawing))
    return Picture(svg(chart, WIDE), svg(chart, NARROW))


def svg(chart: alt.LayerChart | alt.FacetChart, size: Size) -> str:
    """`chart` drawn, its links leading to rows of the page. A link `#t5-` is the same as `#t5` without a tab stop."""
    sized = chart.properties(width=size.width, height=size.height).configure(**_look())
    page = io.StringIO()
    sized.save(page, format="svg")

    def link(match: re.Match[str]) -> str:
        skipped = ' tabindex="-1"' if match["skip"] else ""
        return f'<a href="#t{match["trial"]}" aria-label="{match["label"]}"{skipped}><path'

    rounded = re.sub(r' (transform|d)="[^"]*"', lambda places: _rounded(places[0]), page.getvalue())
    return re.sub(LINKED_MARK, link, rounded).replace(' opacity="1"', "").replace(DOT_STROKE, "")


def _rounded(places: str) -> str:
    """To a tenth of a pixel, which nobody sees and which keeps the page small."""
    return re.sub(r"-?\d+\.\d{2,}", lambda place: f"{float(place[0]):.1f}", places)


def _x(axes: Axes) -> alt.X:
    return alt.X("x:Q", title=axes.x, scale=alt.Scale(zero=axes.x_zero, nice=True))


def _y(axes: Axes) -> alt.Y:
    scale = alt.Scale(domain=list(axes.y_domain)) if axes.y_domain else alt.Scale(zero=True, nice=True)
    return alt.Y("y:Q", title=axes.y, scale=scale)


def row_link(trial: int, *, stops: bool) -> str:
    """The link of a mark to its trial's row; `stops`: whether the tab key stops there."""
    return f"#t{trial}" if stops else f"#t{trial}-"


def _dots(drawing: Drawing) -> alt.Chart:
    values = [
        {
            "x": dot.x,
            "y": dot.y,
            "role": dot.role,
            "size": SIZES[dot.role],
            "look": _look_of(dot),
            "label": dot.label,
            "row": row_link(dot.trial, stops=dot.on_frontier or (dot.is_best and dot.role in {"deploy", "default"})),
        }
        for dot in sorted(drawing.dots, key=lambda dot: ROLES.index(dot.role), reverse=True)
    ]
    stroke = alt.Scale(domain=list(_LOOKS), range=[stroke for stroke, _ in _LOOKS.values()])
    fill = alt.Scale(domain=list(_LOOKS), range=[fill for _, fill in _LOOKS.values()])
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values))
        .mark_point(strokeWidth=1.3, opacity=1)
        .encode(
            x=_x(drawing.axes),
            y=_y(drawing.axes),
            stroke=alt.Stroke("look:N", scale=stroke, legend=None),
            fill=alt.Fill("look:N", scale=fill, legend=None),
            shape=alt.Shape("role:N", scale=alt.Scale(domain=ROLES, range=SHAPES), legend=None),
            size=alt.Size("size:Q", scale=None),
            description="label:N",
            href="row:N",
        )
    )
    return chart


_LOOKS: Mapping[str, tuple[str, str]] = {
    "deploy": ("var(--deploy)", "var(--deploy)"),
    "deploy misses": ("var(--deploy)", "var(--page)"),
    "default": ("var(--default)", "var(--default)"),
    "default misses": ("var(--default)", "var(--page)"),
    "other": ("var(--other)", "var(--other)"),
    "other misses": ("var(--miss)", "transparent"),
    "frontier": ("var(--ink)", "var(--other)"),
    "frontier misses": ("var(--ink)", "var(--page)"),
    "failed misses": ("var(--ink)", "transparent"),
}
"""Stroke and fill."""


def _look_of(dot: Dot) -> str:
    part = "frontier" if dot.on_frontier and dot.role == "other" else dot.role
    return part if dot.holds else f"{part} misses"


def _lines(drawing: Drawing) -> list[alt.Chart]:
    charts = []
    for line in drawing.lines:
        role = line[0].role if line else "other"
        values = [{"x": dot.x, "y": dot.y} for dot in line]
        leads = role in {"deploy", "default"}
        width, opacity = (2.0, 1.0) if leads else (1.0, 0.6)
        charts.append(
            alt.Chart(alt.InlineData(values))
            .mark_line(stroke=f"var(--{role})", strokeWidth=width, opacity=opacity, aria=False)
            .encode(x=_x(drawing.axes), y=_y(drawing.axes), order="x:Q")
        )
    return charts


def _stairs(drawing: Drawing) -> list[alt.Chart]:
    if len(drawing.stairs) < 2:
        return []
    values = [{"x": x, "y": y} for x, y in drawing.stairs]
    return [
        alt.Chart(alt.InlineData(values))
        .mark_line(stroke="var(--ink)", strokeWidth=1.2, interpolate=drawing.stairs_style, aria=False)
        .encode(x=_x(drawing.axes), y=_y(drawing.axes), order="x:Q")
    ]


def _level(drawing: Drawing) -> list[alt.Chart]:
    if drawing.level is None:
        return []
    data = alt.InlineData([{"y": drawing.level.y}])
    rule = alt.Chart(data).mark_rule(stroke="var(--good)", strokeDash=[5, 4], aria=False).encode(y=_y(drawing.axes))
    text = (
        alt.Chart(data)
        .mark_text(text=drawing.level.word, align="center", baseline="top", dy=5, fill="var(--good)", aria=False)
        .encode(y=_y(drawing.axes), x=alt.value(alt.expr("width / 2")))
    )
    return [rule, text]


def _words(drawing: Drawing) -> list[alt.Chart]:
    """Words beside dots, in their colour, on a halo of the page's.

    Curves fall to the right, so there is room above to the right; the default's stand below to the left, out of the
    way of the best's, and so do those at the right end.
    """
    charts = []
    last = RIGHT_END * max((dot.x for dot in drawing.dots), default=0.0)
    for dot, word in drawing.words:
        left = dot.role == "default" or dot.x > last
        base = alt.Chart(alt.InlineData([{"x": dot.x, "y": dot.y}])).encode(x=_x(drawing.axes), y=_y(drawing.axes))
        for halo in ("var(--page)", None):
            charts.append(
                base.mark_text(
                    text=word,
                    align="right" if left else "left",
                    dx=-8 if left else 8,
                    dy=10 if left else -10,
                    fontWeight="bold",
                    fill=halo or f"var(--{dot.role})",
                    stroke=halo,
                    strokeWidth=5,
                    aria=False,
                )
            )
    return charts


def _look() -> dict[str, Any]:
    """Type, grid and axes in the page's own colours."""
    axis = {
        "labelColor": "var(--muted)", "titleColor": "var(--muted)", "gridColor": "var(--line)",
        "domainColor": "var(--muted)", "tickColor": "var(--muted)", "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "labelFont": "system-ui, sans-serif", "titleFont": "system-ui, sans-serif",
    }  # fmt: skip
    flat_y = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleY": -12, "titleX": -30}
    return {
        "background": "transparent",
        "view": {"stroke": None},
        "font": "system-ui, sans-serif",
        "axis": axis,
        "axisX": {"grid": False, "tickCount": 6},
        "axisY": {**flat_y, "domain": False, "ticks": False, "tickCount": 5},
        "text": {"fontSize": 12, "font": "system-ui, sans-serif"},
    }
