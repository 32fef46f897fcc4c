import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from launchers.faults import Pattern, Symptoms
from launchers.ports import reserved_port
from launchers.supervisor import Launch, Server, running
from tuner.errors import BoxUnusable, FailureKind, ServerFailed

FAKES = Path(__file__).parent / "fakes"
PATIENCE_S = 30.0
OUT_OF_MEMORY = Symptoms((Pattern("OutOfMemoryError", FailureKind.OUT_OF_MEMORY),))


def a_launch(folder: Path, behaviour: str, **overrides: Any) -> Launch:
    with reserved_port() as port:
        values: dict[str, Any] = {
            "command": (sys.executable, str(FAKES / "fake_server.py"), behaviour, str(port), str(folder / "pids")),
            "health_url": f"http://127.0.0.1:{port}/health",
            "log": folder / "server.log",
            "env": {},
            "ready_timeout_s": PATIENCE_S,
            "stop_grace_s": PATIENCE_S,
        }
        return Launch(**values | overrides)


def pids_in(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().splitlines()]


def are_gone(pids: list[int]) -> bool:
    return not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    try:
        # An orphan is buried by the machine's first process, which may take its time.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_within_patience(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not are_gone(pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return are_gone(pids)


def wait_until_dead(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while server.guard.exit_code() is None and time.monotonic() < deadline:
        server.guard.wait(0.1)


def test_a_server_is_ready_inside_the_block_and_gone_behind_it(tmp_path):
    launch = a_launch(tmp_path, "healthy")
    with running(launch) as server:
        assert httpx.get(launch.health_url, trust_env=False).status_code == 200
        assert pids_in(tmp_path) == [server.pid]
        server.check_alive()
    assert are_gone([server.pid])


def test_a_server_is_gone_even_if_the_block_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt), running(a_launch(tmp_path, "healthy")):
        raise KeyboardInterrupt
    assert are_gone(pids_in(tmp_path))


def test_a_server_that_ignores_sigterm_is_killed(tmp_path):
    with running(a_launch(tmp_path, "stubborn", stop_grace_s=0.1)) as server:
        pass
    assert are_gone([server.pid])


def test_daemons_that_a_server_left_behind_are_found_and_killed(tmp_path):
    with running(a_launch(tmp_path, "daemonises", stop_grace_s=0.1)):
        pids = pids_in(tmp_path)
        assert len(pids) == 2
    assert are_gone(pids)


def test_daemons_are_killed_also_when_their_server_has_died(tmp_path):
    launch = a_launch(tmp_path, "daemonises", stop_grace_s=0.1)
    with running(launch) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert end_within_patience(pids_in(tmp_path))


@pytest.mark.parametrize("behaviour", ["deaf", "unhealthy"])
def test_a_server_that_never_becomes_healthy_is_stopped_at_the_deadline(tmp_path, behaviour):
    with (
        pytest.raises(ServerFailed, match="not ready after 1 s") as failed,
        running(a_launch(tmp_path, behaviour, ready_timeout_s=1.0)),
    ):
        pass
    assert failed.value.kind is FailureKind.START_TIMEOUT
    assert are_gone(pids_in(tmp_path))


def test_a_server_that_dies_at_once_is_noticed_at_once_with_its_last_words(tmp_path):
    launch = a_launch(tmp_path, "dies", ready_timeout_s=1e6)
    with pytest.raises(ServerFailed) as failed, running(launch):
        pass
    assert failed.value.kind is FailureKind.EXITED_AT_START
    assert failed.value.fault.evidence == "ValueError: I cannot live like this"
    assert str(launch.log) in str(failed.value)


def test_a_command_that_does_not_exist_is_a_failed_server(tmp_path):
    with (
        pytest.raises(ServerFailed, match="/nowhere/vllm: No such file or directory"),
        running(a_launch(tmp_path, "healthy", command=("/nowhere/vllm",))),
    ):
        pass


def test_a_log_that_cannot_be_written_is_the_boxs_fault(tmp_path):
    (tmp_path / "full").touch()
    log = tmp_path / "full" / "0001" / "server.log"
    with pytest.raises(ServerFailed) as failed, running(a_launch(tmp_path, "healthy", log=log)):
        pass
    assert failed.value.kind is FailureKind.DISK_FULL
    assert failed.value.fault.evidence == f"{log}: cannot be written: Not a directory"


def test_a_machine_that_starts_no_process_is_told_and_no_descriptor_is_left(tmp_path):
    before = psutil.Process().num_fds()
    with (
        pytest.raises(BoxUnusable, match="no process can be started on this machine"),
        running(a_launch(tmp_path, "healthy", env={"TOO_LONG": "x" * 10_000_000})),
    ):
        pass
    assert psutil.Process().num_fds() == before


def test_a_server_that_dies_under_load_says_why(tmp_path):
    launch = a_launch(tmp_path, "healthy", symptoms=OUT_OF_MEMORY)
    with running(launch) as server:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(launch.health_url.replace("/health", "/die"), trust_env=False)
        wait_until_dead(server)
        with pytest.raises(ServerFailed, match=r"while it was measured \(exit code 1\)") as failed:
            server.check_alive()
    assert failed.value.kind is FailureKind.OUT_OF_MEMORY
    assert "Tried to allocate 2.50 GiB" in failed.value.fault.evidence


def test_a_server_killed_by_somebody_says_so(tmp_path):
    with running(a_launch(tmp_path, "healthy", symptoms=OUT_OF_MEMORY)) as server:
        os.kill(server.pid, signal.SIGKILL)
        wait_until_dead(server)
        with pytest.raises(ServerFailed, match="killed by SIGKILL") as failed:
            server.check_alive()
    assert failed.value.kind is FailureKind.KILLED


def test_what_a_server_before_logged_is_not_held_against_the_next_one(tmp_path):
    (tmp_path / "server.log").write_text("torch.OutOfMemoryError: long ago\n")
    with (
        pytest.raises(ServerFailed) as failed,
        running(a_launch(tmp_path, "dies", symptoms=OUT_OF_MEMORY)),
    ):
        pass
    assert failed.value.kind is FailureKind.EXITED_AT_START


def test_megabytes_of_log_do_not_block_a_server(tmp_path):
    launch = a_launch(tmp_path, "chatty")
    with running(launch):
        pass
    assert launch.log.stat().st_size >= 3_000_000


def test_somebody_elses_server_on_the_port_is_not_taken_for_ours(tmp_path):
    launch = a_launch(tmp_path, "healthy")
    with running(launch):
        ours = tmp_path / "ours"
        ours.mkdir()
        deaf = a_launch(ours, "deaf", health_url=launch.health_url, ready_timeout_s=1.0)
        with pytest.raises(ServerFailed, match="not ready"), running(deaf):
            pass


def test_the_environment_of_the_launch_is_added_to_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("GOODTUNE_TEST_OURS", "ours")
    code = "import os; raise ValueError(os.environ['GOODTUNE_TEST_OURS'] + os.environ['GOODTUNE_TEST_ADDED'])"
    launch = a_launch(
        tmp_path, "healthy", command=(sys.executable, "-c", code), env={"GOODTUNE_TEST_ADDED": " and added"}
    )
    with pytest.raises(ServerFailed, match="ValueError: ours and added"), running(launch):
        pass


def test_a_server_is_kept_to_its_cores(tmp_path):
    first = min(os.sched_getaffinity(0))
    with running(a_launch(tmp_path, "healthy", cores=(first,))) as server:
        assert os.sched_getaffinity(server.pid) == {first}


def test_no_descriptor_is_left_open(tmp_path):
    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_descriptors()
    with running(a_launch(tmp_path, "healthy")):
        pass
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("healthy",), id="a plain server"),
        pytest.param(("stubborn",), id="a server that ignores SIGTERM"),
        pytest.param(("daemonises",), id="a server that left daemons behind"),
        pytest.param(("healthy", "forks"), id="a tuner whose forked child lives on"),
    ],
)
def test_nothing_outlives_a_tuner_that_is_killed(tmp_path, arguments):
    behaviour, *forks = arguments
    with reserved_port() as port:
        command = [sys.executable, str(FAKES / "fake_tuner.py"), behaviour, str(port), str(tmp_path), *forks]
        tuner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with tuner:
            assert tuner.stdout
            ready, *fork = tuner.stdout.readline().split()
            assert ready == "ready"
            guardian = psutil.Process(pids_in(tmp_path)[0]).ppid()
            tuner.kill()
            try:
                assert end_within_patience([guardian, *pids_in(tmp_path)])
            finally:
                for pid in fork:
                    os.kill(int(pid), signal.SIGKILL)


def test_a_server_dies_with_its_guardian(tmp_path):
    with running(a_launch(tmp_path, "stubborn")) as server:
        os.kill(server.guard.pid, signal.SIGKILL)
        assert end_within_patience([server.pid])
        wait_until_dead(server)
        with pytest.raises(ServerFailed):
            server.check_alive()


def test_a_reserved_port_can_be_bound_by_a_server_but_is_given_to_nobody_else():
    with reserved_port() as port, socket.create_server(("127.0.0.1", port)), reserved_port() as another:
        assert another != port
