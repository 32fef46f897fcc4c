"""Exit codes: what a script learns of how a command ended. A user's mistake is 2, a bug 1."""

from collections.abc import Mapping

from tuner.summary import VerdictWord

DONE, NOT_MET, UNKNOWN, INTERRUPTED = 0, 3, 4, 130

EXIT_CODES: Mapping[VerdictWord, int] = {
    "deploy": DONE,
    "keep-default": DONE,
    "nothing-meets-slo": NOT_MET,
    "inconclusive": UNKNOWN,
    "interrupted": INTERRUPTED,
}
