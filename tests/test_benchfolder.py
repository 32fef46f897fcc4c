"""The folder of a bench: no finished probe is lost, nothing secret is kept, and all that was asked is read again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launchers.access import access_of
from launchers.remote import Described
from tests.builders import a_score, a_workload, an_slo
from tests.logs import a_log
from tests.simulated import a_virtual_server
from tuner.bench import bench
from tuner.benchfolder import begin, is_bench, keep, read_bench, timings
from tuner.benchorder import Bench
from tuner.config.slo import Limits
from tuner.errors import ConfigError
from tuner.probe import Recorded
from tuner.rawlog import read_probes
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.target import ClosedLoop, Load, OpenLoop, Target, Watch, Window

SERVER = Described("http://127.0.0.1:8000", "m", "vllm", 32000, 4096)
SLO = an_slo(limits=Limits(ttft_s=0.3, tpot_s=0.02), attainment=0.9, warmup_s=0.2, window_s=4.0, timeout_s=20.0)


def a_probe() -> Recorded:
    return Recorded("search", 0, a_score(), a_log([(0.0, (0.1, 0.2)), (0.1, (0.3,))]), 10.0, seed=1)


@pytest.mark.parametrize("load", [None, OpenLoop(8.5), ClosedLoop(32)], ids=["a search", "a rate", "users"])
def test_what_was_asked_is_read_again(tmp_path: Path, load: Load | None) -> None:
    order = Bench(a_workload(), SLO, seed=7, gpus=2, load=load, requests=300 if load else None)
    begin(tmp_path / "new" / "bench", order, SERVER)
    again = read_bench(tmp_path / "new" / "bench")
    assert (again.order, again.described, again.probes) == (order, SERVER, ())
    assert is_bench(tmp_path / "new" / "bench") and not is_bench(tmp_path)


@pytest.mark.parametrize("was", ["bench.yaml", "plan.yaml"], ids=["a bench", "a study"])
def test_nothing_is_measured_into_a_folder_that_has_something(tmp_path: Path, was: str) -> None:
    (tmp_path / was).write_text("")
    with pytest.raises(ConfigError, match="measured into this folder before; give another --out"):
        begin(tmp_path, Bench(a_workload(), SLO), SERVER)


def test_every_finished_probe_is_on_disk_before_the_next_one_begins(tmp_path: Path) -> None:
    order = Bench(a_workload(), SLO)
    begin(tmp_path, order, SERVER)
    before: list[int] = []

    class Watched:
        """A target that looks into the folder when a probe begins."""

        def __init__(self, target: Target) -> None:
            self.reset_cache, self.facts, self.clock_s = target.reset_cache, target.facts, target.clock_s
            self._target = target

        def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
            kept = read_bench(tmp_path).probes
            assert all(len(read_probes(timings(tmp_path, one.number))[0].request) for one in kept)
            before.append(len(kept))
            return self._target.replay(requests, load, window, watch)

    numbers: Iterator[int] = iter(range(100))
    target = Watched(a_virtual_server())
    found = bench(order, target, "vllm", lambda probe: keep(tmp_path, next(numbers), probe))
    assert before == list(range(len(before))) and len(before) > 3
    assert [one.score for one in read_bench(tmp_path).probes[1:]] == list(found.outcome.probes)


def test_a_probe_s_timings_are_kept_with_every_chunk(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    begin(tmp_path, Bench(a_workload(), SLO), SERVER)
    keep(tmp_path, 0, a_probe())
    assert pq.read_table(timings(tmp_path, 0))["chunk_s"].to_pylist() == [[0.1, 0.2], [0.3]]


def test_a_line_that_a_crash_cut_off_is_no_probe(tmp_path: Path) -> None:
    begin(tmp_path, Bench(a_workload(), SLO), SERVER)
    keep(tmp_path, 0, a_probe())
    with (tmp_path / "probes.jsonl").open("a") as lines:
        lines.write('{"number": 1, "stage": "sea')
    assert [one.number for one in read_bench(tmp_path).probes] == [0]


def test_who_asked_is_not_kept(tmp_path: Path) -> None:
    url, access = access_of("http://me:s3cr3t@127.0.0.1:8000", None)
    begin(tmp_path, Bench(a_workload(), SLO), replace(SERVER, url=url, access=access))
    keep(tmp_path, 0, a_probe())
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == 3
    assert not any(secret.encode() in content for content in kept for secret in ("s3cr3t", *access.secrets))
