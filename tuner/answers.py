"""Answers: a server that answers nothing as it should has failed, however quickly it does so."""

from pathlib import Path

import numpy as np

from tuner.errors import FailureKind, Fault, ServerFailed
from tuner.requestlog import RequestLog, Status

BAD_ANSWERS = (Status.FAILED, Status.TRUNCATED, Status.EMPTY)
# So many answers, all of them bad, are no accident.
LEAST_ANSWERS = 8


def check_answers(log: RequestLog, server_log: Path) -> None:
    """Raise ServerFailed where a probe had answers, and all of them were errors, garbage or too short.

    A server that is only slow lets requests time out, or be late. `server_log` need not exist.
    """
    ended = log.status[log.status != Status.UNFOLLOWED]
    if len(ended) < LEAST_ANSWERS or not np.isin(ended, BAD_ANSWERS).all():
        return
    told, also = [*log.errors, "", ""][:2]
    what = f"none of {len(ended)} requests was answered as it should be"
    where = server_log if server_log.exists() else None
    raise ServerFailed(Fault(FailureKind.BAD_ANSWERS, told, also), what, where)
