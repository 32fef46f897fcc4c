"""Users: how many of them to probe next on a warm server. Pure.

Users are whole. The search of their best number ends when that and the next higher one were measured thoroughly, and
it is clear which of the two it is, or both were measured so twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.curve import Curve
from tuner.requests import FloatArray

# Numbers closer than this tell the same: below 38 users all differ.
APART = 0.04
# Between two probed numbers further apart than this a quick probe comes first.
NARROW = 1.5
# The best number may lie this far above the highest probed one before that is exceeded by quick probes.
ABOVE = 1.15
BOLDEST_DOWN = 3
# How sure it has to be that of two neighbours the lower one is the best; and what error of its logarithm is small.
SURE, KNOWN = 0.9, 0.02
# So many thorough looks at one number at most, and so many around the best before one at each is enough.
MOST_THOROUGH, ENOUGH_THOROUGH, AROUND = 2, 4, 1.1
# A look that was to be thorough may have turned out too short: so many of any kind.
MOST_LOOKS = 3
# The best may be so much lower than what is likeliest, where it is not sure.
LEAST_SHARE = 0.85


@dataclass(frozen=True)
class Looked:
    """One probe, made or to be made: of how many users, and whether long enough to decide."""

    users: int
    is_thorough: bool = False


def candidates(curve: Curve, best: float, wanted: float) -> FloatArray:
    """The whole numbers of users to choose from where `best` is the best one in theory."""
    top = max(1, int(best))
    if curve.attainment_at(top + 1) >= wanted:
        top += 1
    return np.arange(max(1, int(LEAST_SHARE * best)), top + 1, dtype=float)


def next_users(seen: Sequence[Looked], curve: Curve, best: int, growth: float) -> Looked | None:
    """The next probe after those `seen`, None when enough is known. `best`: the number that is likeliest the best."""
    numbers = {one.users for one in seen}
    lowest, highest = min(numbers), max(numbers)
    if curve.best_level > highest * ABOVE and curve.best_level >= highest + 1:
        return Looked(max(min(int(curve.best_level), int(highest * growth)), highest + 1))
    if best < lowest:
        return Looked(max(best, lowest // BOLDEST_DOWN, 1))
    if best >= highest:
        # Cheaper than one thorough look after the other, each a little higher than the last.
        return Looked(max(best + 1, round(highest * NARROW)))
    below = max(number for number in numbers if number <= best)
    above = min(number for number in numbers if number > best)
    # Just below a cliff all is well: the curve says little of how far it is.
    if above > max(below * NARROW, below + 2):
        return Looked(round((below * above) ** 0.5))
    return _deciding(seen, curve, best)


def _deciding(seen: Sequence[Looked], curve: Curve, best: int) -> Looked | None:
    """A thorough look at the best number or its neighbour, whichever has had fewer; None when they are known."""
    above = best + max(1, round(APART * best))
    is_sure = curve.chance_above(best) - curve.chance_above(above) > SURE or curve.error < KNOWN
    around = [one for one in seen if one.is_thorough and best / AROUND <= one.users <= above * AROUND]
    most = 1 if is_sure or len(around) >= ENOUGH_THOROUGH else MOST_THOROUGH
    # Where not even one user holds the SLO, two need not be looked at.
    wanted = [best, above] if curve.best_level >= 1 else [best]
    looks = {
        number: [one.is_thorough for one in seen if abs(one.users - number) <= (above - best) / 2]
        for number in wanted
    }
    short = [number for number in wanted if sum(looks[number]) < most and len(looks[number]) < MOST_LOOKS]
    return Looked(min(short, key=lambda number: sum(looks[number])), is_thorough=True) if short else None
