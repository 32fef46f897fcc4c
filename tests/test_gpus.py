"""GPUs: which of a box a study may use."""

import pytest

from launchers.driver import Occupant
from tuner.errors import BoxUnusable, ConfigError
from tuner.gpus import Device, chosen_gpus, gpu_of, real_box, simulated_box, visible

BOX = [Device(index, "NVIDIA H100 80GB HBM3", 79.6) for index in range(8)]


@pytest.mark.parametrize(
    ("text", "gpus"),
    [("2", (0, 1)), ("0,1,4-7", (0, 1, 4, 5, 6, 7)), ("3,", None), ("0,0", None), ("all", None), ("0", None)],
)
def test_gpus_are_a_number_or_a_list(text: str, gpus: tuple[int, ...] | None) -> None:
    if gpus is None:
        with pytest.raises(ConfigError, match=f"--gpus {text}"):
            chosen_gpus(text)
    else:
        assert chosen_gpus(text) == gpus


def test_a_box_knows_its_kind_and_the_memory_the_driver_says() -> None:
    box = real_box(BOX, None)
    assert (box.gpu.name, box.gpu.memory_gib, box.gpus, box.simulation) == ("h100", 79.6, tuple(range(8)), None)


def test_only_what_the_scheduler_left_to_this_process_is_used() -> None:
    mine = visible(BOX, "4,5")
    assert real_box(mine, None).gpus == (4, 5)
    assert real_box(mine, "1").gpus == (4,)
    with pytest.raises(ConfigError, match="this process has 4, 5"):
        real_box(mine, "0,4")
    with pytest.raises(ConfigError, match="this process has 4, 5"):
        real_box(mine, "3")


def test_gpus_named_otherwise_than_by_number_are_refused() -> None:
    with pytest.raises(BoxUnusable, match="name the GPUs by number"):
        visible(BOX, "GPU-1234")
    assert visible(BOX, None) == BOX


def test_a_study_needs_gpus_of_one_kind() -> None:
    mixed = [BOX[0], Device(1, "NVIDIA A100-SXM4-80GB", 80.0)]
    with pytest.raises(BoxUnusable, match="GPUs of one kind"):
        real_box(mixed, None)
    assert real_box(mixed, "1").gpus == (0,)


def test_an_unknown_gpu_is_named() -> None:
    with pytest.raises(BoxUnusable, match="Radeon"):
        gpu_of(Device(0, "Radeon", 16.0))


def test_a_simulated_box_has_eight_h100s_unless_asked_otherwise() -> None:
    assert simulated_box("virtual", None, None).title == "8 × H100"
    assert simulated_box("virtual", "h200", "2").title == "2 × H200"


BUSY = Device(0, "NVIDIA H100 80GB HBM3", 79.6, 20.5, (Occupant(4242, "python", 20.1),))


def test_a_gpu_that_somebody_computes_on_is_refused_with_his_process() -> None:
    box = [BUSY, *BOX[1:3]]
    message = r"GPU 0 is in use by python \(pid 4242, 20.1 GiB\); .* --gpus 2, or .*--simulate virtual"
    for gpus in (None, "3", "0,1"):
        with pytest.raises(BoxUnusable, match=message):
            real_box(box, gpus)
    with pytest.raises(BoxUnusable, match="wait for the end of that, or simulate"):
        real_box([BUSY], None)


def test_a_gpu_whose_memory_is_taken_by_somebody_the_driver_does_not_name_is_refused_too() -> None:
    hidden = Device(0, "NVIDIA H100 80GB HBM3", 79.6, 60.0)
    with pytest.raises(BoxUnusable, match=r"GPU 0 has 60.0 GiB in use, and the driver names no process"):
        real_box([hidden], None)
    assert real_box([hidden, *BOX[1:3]], "2").gpus == (1, 2)
    assert real_box([Device(0, "NVIDIA H100 80GB HBM3", 79.6, 1.1)], None).idle_gib == {0: 1.1}


def test_of_a_number_of_gpus_those_are_taken_that_nobody_uses() -> None:
    box = real_box([BUSY, *BOX[1:3]], "2")
    assert (box.gpus, box.idle_gib) == ((1, 2), {1: 0.0, 2: 0.0})
    assert real_box([BUSY, *BOX[1:3]], "1,2").gpus == (1, 2)
