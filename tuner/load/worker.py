"""A load worker: `python -m tuner.load.worker JOB K` offers its share of a job and streams up what it saw."""

import asyncio
import gc
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import uvloop

from tuner.load.channel import Channel, open_channel
from tuner.load.health import Wakes, effort
from tuner.load.offer import Offer
from tuner.load.prompts import Questions, questions
from tuner.load.recorder import Recorder
from tuner.load.transport import TRANSPORT_ERRORS, Client, open_client, reason
from tuner.load.wire import AUTHORIZATION, Ended, Ending, Followed, Job, Over, Ready
from tuner.target import ClosedLoop, Load, OpenLoop

FLUSH_PERIOD_S = 0.1
# In an open loop nobody knows how many requests will be under way together: at least a second's arrivals.
WARM_CONNECTIONS = (64, 512)
WARM_TIMEOUT_S = 5.0


async def work(job: Job, worker: int) -> None:
    """Make the prompts, open connections, say so, wait for the start, offer the load until told to stop."""
    asked = questions(job.endpoint.model, job.endpoint.vocab, job.requests, job.rows_of(worker))
    channel = await open_channel()
    async with open_client(job.endpoint.base_url, asked.path, os.environ.get(AUTHORIZATION, "")) as client:
        await _warm(client, job)
        channel.send(Ready())
        recorder = Recorder(await channel.words.started)
        sender = _Sender(client, asked, recorder, job.window.timeout_s)
        with _collector_at_rest():
            await _offer(worker, Offer(job, worker, recorder, sender.send), recorder, channel)
    await channel.close()


async def _offer(worker: int, offer: Offer, recorder: Recorder, channel: Channel) -> None:
    before, wakes = effort(), Wakes()
    async with asyncio.TaskGroup() as group:
        offering = group.create_task(offer.run())
        flushing = group.create_task(_flush(recorder, channel))
        followed = group.create_task(_tell_when_followed(offer, channel))
        watching = group.create_task(wakes.watch())
        stopping = group.create_task(channel.words.stopped.wait())
        await asyncio.wait((offering, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (offering, flushing, followed, watching, stopping):
            task.cancel()
    spent = effort().since(before)
    channel.send(recorder.take())
    efforts = (spent.run_queue_wait_s, spent.busy_frac, spent.cpu_frac, wakes.lag_p99_s)
    channel.send(Over(worker, *efforts, stalls=wakes.stalls(recorder.start_s)))


async def _flush(recorder: Recorder, channel: Channel) -> None:
    while True:
        await asyncio.sleep(FLUSH_PERIOD_S)
        channel.send(recorder.take())


async def _tell_when_followed(offer: Offer, channel: Channel) -> None:
    await offer.followed()
    channel.send(Followed())


class _Sender:
    def __init__(self, client: Client, questions: Questions, recorder: Recorder, timeout_s: float) -> None:
        self._client = client
        self._questions = questions
        self._recorder = recorder
        self._timeout_s = timeout_s

    async def send(self, row: int, due_s: float) -> Ended:
        """Send one request and record its answer. Whatever becomes of it is recorded, not raised."""
        recorder = self._recorder
        status, how, why = 0, Ending.CANCELLED, ""
        question = self._client.question(self._questions.body(row), partial(recorder.read, row))
        recorder.sent(row, due_s)
        try:
            async with asyncio.timeout(due_s + self._timeout_s - recorder.now_s()):
                async with self._client.ask(question) as response:
                    status = response.status_code
                    await response.aread()
            how = Ending.BODY_ENDED
        except TimeoutError:
            how = Ending.TIMED_OUT
        except TRANSPORT_ERRORS as error:
            how, why = Ending.BROKE, reason(error)
        finally:
            ended = recorder.ended(row, how, status, why)
        return ended


async def _warm(client: Client, job: Job) -> None:
    """Open as many connections as this worker will need, together, so that none is used twice."""
    async with asyncio.TaskGroup() as group:
        for _ in range(-(-connections_needed(job.load) // job.workers)):
            group.create_task(_touch(client))


def connections_needed(load: Load) -> int:
    """How many connections to have open when the load begins."""
    match load:
        case ClosedLoop(users):
            return users
        case OpenLoop(rate_rps):
            return int(np.clip(rate_rps, *WARM_CONNECTIONS))


async def _touch(client: Client) -> None:
    """Open one connection. That the server cannot be reached will show in the results."""
    try:
        async with asyncio.timeout(WARM_TIMEOUT_S):
            await client.touch()
    except (TimeoutError, *TRANSPORT_ERRORS):
        return


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def main(job_path: str, worker: str) -> None:
    """Run one worker of the job in the file `job_path`."""
    job: Job = pickle.loads(Path(job_path).read_bytes())
    uvloop.run(work(job, int(worker)))


if __name__ == "__main__":
    main(*sys.argv[1:])
