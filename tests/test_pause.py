"""In which words a study pauses."""

from pathlib import Path

import pytest

from tests.builders import a_crash, an_outcome
from tuner.errors import BOX_FAULTS, BoxUnusable, FailureKind, StudyPaused
from tuner.outcome import Failure, Outcome
from tuner.pause import ADVICE, ROOM_MIB, check_room, check_something_starts, paused, paused_by

FOLDER = Path("results/study")


def test_a_pause_says_what_happened_what_the_log_says_what_to_mend_and_how_to_go_on() -> None:
    failure = Failure(FailureKind.GPU_LOST, "the server died", "CUDA error: ECC", "t1/server.log", "loading weights")
    assert str(paused_by(failure, 2, FOLDER)) == (
        "the study is paused: gpu-lost, 2 times in a row; the server died\n"
        "  loading weights\n"
        "  CUDA error: ECC\n"
        "server log: t1/server.log\n"
        "look at `dmesg` and `nvidia-smi`, reset the GPU or restart the machine; behind NVSwitch, the fabric manager "
        "has to run; nothing is lost, go on with --resume --out results/study"
    )


@pytest.mark.parametrize("kind", sorted(BOX_FAULTS))
def test_there_is_advice_for_every_fault_of_the_box(kind: FailureKind) -> None:
    assert ADVICE[kind]


def test_what_goes_wrong_outside_of_servers_pauses_a_study_too() -> None:
    found = paused(BoxUnusable("study.db: disk is full"), FOLDER)
    assert isinstance(found, StudyPaused)
    assert "study.db: disk is full" in str(found) and "--resume --out results/study" in str(found)
    assert paused(found, FOLDER) is found


def test_no_trial_is_begun_without_room_to_write_it_down(tmp_path: Path) -> None:
    check_room(tmp_path)
    # /proc has no room at all, whatever the machine.
    with pytest.raises(BoxUnusable, match=f"0 MiB are free on this disk, a trial may take {ROOM_MIB}"):
        check_room(Path("/proc"))


def failures(*kinds: FailureKind | None) -> list[Outcome]:
    """A trial for each; None: one that was measured."""
    return [
        a_crash(number, failure=Failure(kind, "the server did not start", "RuntimeError: x"))
        if kind
        else an_outcome()
        for number, kind in enumerate(kinds)
    ]


EXITED, GPU = FailureKind.EXITED_AT_START, FailureKind.UNSUPPORTED_GPU


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((EXITED, GPU, EXITED, GPU), id="none starts"),
        pytest.param((FailureKind.KILLED,) * 4, id="two configurations, each killed twice"),
    ],
)
def test_a_study_pauses_where_no_server_of_several_could_be_measured(kinds: tuple[FailureKind, ...]) -> None:
    with pytest.raises(
        StudyPaused, match="none of 4 servers could be measured, the last because: the server did not"
    ):
        check_something_starts(failures(*kinds), FOLDER)


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param(failures(EXITED, EXITED, EXITED), id="too few to tell"),
        pytest.param(failures(EXITED, None, EXITED, EXITED, EXITED), id="one was measured"),
        pytest.param(failures(EXITED, FailureKind.BAD_FLAG, EXITED, EXITED), id="a configuration is to blame"),
    ],
)
def test_a_study_goes_on_that_may_find_a_server_that_starts(outcomes: list[Outcome]) -> None:
    check_something_starts(outcomes, FOLDER)
