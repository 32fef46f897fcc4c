"""A scatter plot with a falling staircase, drawn with characters. Pure."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

ROWS = 9
COLUMNS = 56
MARGIN = 8
"""Columns left of the drawing, for the ticks of y."""


@dataclass(frozen=True)
class Mark:
    """A point drawn over the staircase, with a word beside it."""

    x: float
    y: float
    glyph: str
    word: str


def staircase_plot(curve: Sequence[tuple[float, float]], marks: Sequence[Mark], titles: tuple[str, str]) -> list[str]:
    """The lines of a plot of `curve` (what is attainable up to each x) and `marks`; `titles` of the x and y axis."""
    xs = [x for x, _ in curve] + [mark.x for mark in marks]
    ys = [y for _, y in curve] + [mark.y for mark in marks]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(0.0, max(ys), 3)
    cells = [[" "] * COLUMNS for _ in range(ROWS)]

    def at(x: float, y: float) -> tuple[int, int]:
        column = round((x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (COLUMNS - 1))
        return ROWS - 1 - round(y / y_ticks[-1] * (ROWS - 1)), column

    _draw_stairs(cells, [at(x, y) for x, y in sorted(curve)])
    _write(cells, [(*at(mark.x, mark.y), mark) for mark in marks])
    labels = {at(x_ticks[0], tick)[0]: f"{tick:,g}" for tick in y_ticks}
    lines = [f"{titles[1]:>{MARGIN + len(titles[1]) - 6}}"]
    for row, line in enumerate(cells):
        lines.append(f"{labels.get(row, ''):>{MARGIN - 2}} {'┤' if row in labels else '│'}{''.join(line)}".rstrip())
    return [*lines, *_x_axis([(at(tick, 0)[1], f"{tick:,g}") for tick in x_ticks], titles[0])]


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers that cover [low, high]; never fewer than two."""
    if high <= low:
        low, high = min(0.0, low), max(1.0, high)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def _draw_stairs(cells: list[list[str]], corners: Sequence[tuple[int, int]]) -> None:
    """Steps through `corners` (row, column), which go right and down: level up to each, then down to the next."""
    before: tuple[int, int] | None = None
    for row, column in corners:
        start = before[1] if before else 0
        for across in range(start, column + 1):
            cells[row][across] = "━"
        if before and before[0] != row:
            for down in range(before[0] + 1, row):
                cells[down][start] = "┃"
            cells[before[0]][start], cells[row][start] = "┓", "┗"
        before = (row, column)


def _write(cells: list[list[str]], placed: Sequence[tuple[int, int, Mark]]) -> None:
    """The glyphs at their places (row, column), each word beside its own where no other glyph or word stands: to the
    right, else to the left, else in the row below or above."""
    taken = {(row, column) for row, column, _ in placed}
    for row, column, mark in placed:
        right, left = (f" {mark.word}", column + 1), (f"{mark.word} ", column - 1 - len(mark.word))
        spots = [
            (row, *right),
            (row, *left),
            (row + 1, *right),
            (row - 1, *right),
            (row + 1, *left),
            (row - 1, *left),
        ]
        free = [spot for spot in spots if _fits(cells, spot, taken)]
        for line, word, start in free[:1]:
            cells[line][start : start + len(word)] = word
            taken |= {(line, start + place) for place in range(len(word))}
    for row, column, mark in placed:
        cells[row][column] = mark.glyph


def _fits(cells: list[list[str]], spot: tuple[int, str, int], taken: Collection[tuple[int, int]]) -> bool:
    row, word, start = spot
    is_inside = 0 <= row < len(cells) and start >= 0 and start + len(word) <= COLUMNS
    return is_inside and not any((row, start + place) in taken for place in range(len(word)))


def _x_axis(marked: Sequence[tuple[int, str]], name: str) -> list[str]:
    axis = ["─"] * COLUMNS
    labels = [" "] * (COLUMNS + MARGIN)
    for column, text in marked:
        axis[column] = "┬"
        start = max(0, column - len(text) // 2)
        labels[start : start + len(text)] = text
    indent = " " * (MARGIN - 1)
    return [f"{indent}└{''.join(axis)}", f"{indent} {''.join(labels).rstrip()}  {name}"]
