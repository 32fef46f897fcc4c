"""Recorded traffic: Azure and BurstGPT CSV, Mooncake JSONL, ShareGPT JSON, JSONL of prompts, as one kind of trace."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from tuner.errors import ConfigError
from tuner.requests import FloatArray, IntArray
from tuner.workload.chats import Chat, prompt_lengths
from tuner.workload.rows import SHAPES, Asked, row_of

ROWS_AT_MOST = 200_000
"""Longer traces are read up to here: the 2024 Azure week has 27 million rows."""
BATCH_S = 3.0
"""Mooncake's clock: all requests of three seconds carry one time stamp."""
FIRST_CHARACTERS = 2**16
"""Enough to know a format by; a ShareGPT file is one line."""
CHAT_TOKENS, CHAT_FACTOR = 64, 4 / 3
"""What a chat's template may add to a prompt, and how much longer a text may be than was estimated: room for both is
left in the context."""


@dataclass(frozen=True)
class Trace:
    """n recorded requests in order of arrival. `arrival_s` (n,) is None where the file has no times.

    `blocks[i]` are the content hashes of the prompt's blocks of 512 tokens (the last may be shorter); None where
    the file says nothing about content. `chats[i]` is the prompt itself, None where the file has none; token counts
    are then estimates.
    """

    prompt_tokens: IntArray
    output_tokens: IntArray
    arrival_s: FloatArray | None = None
    blocks: tuple[tuple[int, ...], ...] | None = None
    chats: tuple[Chat, ...] | None = None

    @property
    def rate_rps(self) -> float | None:
        """Requests per second from the first to the last; None where the file has no times, or only one."""
        if self.arrival_s is None or len(self.arrival_s) < 2 or self.arrival_s[-1] <= self.arrival_s[0]:
            return None
        return float((len(self.arrival_s) - 1) / (self.arrival_s[-1] - self.arrival_s[0]))

    def fitting(self, context: int) -> "Trace":
        """Those of its requests whose prompt and answer fit into `context` tokens; none, perhaps."""
        prompt_tokens = self.prompt_tokens if self.chats is None else self.prompt_tokens * CHAT_FACTOR + CHAT_TOKENS
        fits = np.flatnonzero(prompt_tokens + self.output_tokens <= context)
        return Trace(
            prompt_tokens=self.prompt_tokens[fits],
            output_tokens=self.output_tokens[fits],
            arrival_s=None if self.arrival_s is None else self.arrival_s[fits],
            blocks=None if self.blocks is None else tuple(self.blocks[row] for row in fits.tolist()),
            chats=None if self.chats is None else tuple(self.chats[row] for row in fits.tolist()),
        )


Row = tuple[float, int, int]
Written = TypeVar("Written")
Understood = TypeVar("Understood")


def read_trace(path: Path) -> Trace:
    """The trace in `path`, whose format is known by its content. Raises ConfigError."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4)
def _read(path: Path, _changed_ns: int) -> Trace:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.read(FIRST_CHARACTERS)
            file.seek(0)
            trace = _reader(first)(file)
    except _BadRow as bad:
        raise ConfigError(f"{path}: {bad}; {_KNOWN}") from bad
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: not a trace this program knows ({error}); {_KNOWN}") from error
    if not len(trace.prompt_tokens):
        raise ConfigError(f"{path}: no request with both a prompt and an answer; {_KNOWN}")
    return trace


_KNOWN = (
    "known are Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens), BurstGPT CSV (Timestamp,Model,Request tokens,"
    "Response tokens,...), Mooncake JSONL (timestamp, input_length, output_length, hash_ids), and JSON or JSONL of "
    f"texts, whose rows have {', '.join([*SHAPES][:-1])} or {[*SHAPES][-1]} (and output_tokens, if known)"
)


def _reader(beginning: str) -> Callable[[TextIO], Trace]:
    if beginning.lstrip().startswith("["):
        return _array
    first_line, _, _ = beginning.partition("\n")
    for key, reader in (("ContextTokens", _azure), ("Request tokens", _burstgpt), ("input_length", _mooncake)):
        if key in first_line:
            return reader
    if first_line.lstrip().startswith("{") and any(f'"{key}"' in first_line for key in SHAPES):
        return _lines
    raise ValueError("its first line fits none")


class _BadRow(Exception):
    """Where a row is and what is wrong with it."""


def _each(rows: Iterable[tuple[str, Written]], understood: Callable[[Written], Understood]) -> Iterator[Understood]:
    """Every row, understood; each comes with where it is. Raises _BadRow."""
    for where, row in rows:
        try:
            yield understood(row)
        except json.JSONDecodeError as error:
            raise _BadRow(f"{where} is not JSON: {error.msg} in column {error.colno}") from error
        except KeyError as error:
            raise _BadRow(f"{where}: {error} is missing") from error
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise _BadRow(f"{where}: {error}") from error


def _csv_rows(file: TextIO) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(file)
    return ((f"line {reader.line_num}", row) for row in reader)


def _json_lines(file: TextIO) -> Iterator[tuple[str, str]]:
    return ((f"line {number}", line.rstrip()) for number, line in enumerate(file, 1) if line.strip())


def _azure(file: TextIO) -> Trace:
    def understood(row: Mapping[str, str]) -> Row:
        at_s = datetime.fromisoformat(row["TIMESTAMP"]).timestamp()
        return at_s, int(row["ContextTokens"]), int(row["GeneratedTokens"])

    return _timed(_each(_csv_rows(file), understood))


def _burstgpt(file: TextIO) -> Trace:
    """Rows without an answer are failed requests of the recorded service: they are left out."""

    def understood(row: Mapping[str, str]) -> Row:
        return float(row["Timestamp"]), int(row["Request tokens"]), int(row["Response tokens"])

    return _timed(_each(_csv_rows(file), understood))


def _timed(rows: Iterable[Row]) -> Trace:
    kept = sorted(row for row in islice(rows, ROWS_AT_MOST) if row[1] > 0 and row[2] > 0)
    times, prompts, outputs = zip(*kept, strict=True) if kept else ((), (), ())
    arrival_s = np.array(times, dtype=np.float64)
    return Trace(_counts(prompts), _counts(outputs), arrival_s - arrival_s[:1].sum())


def _mooncake(file: TextIO) -> Trace:

    def understood(line: str) -> tuple[float, int, int, tuple[int, ...]]:
        row = json.loads(line)
        hashes = tuple(row.get("hash_ids", ()))
        return float(row["timestamp"]) / 1e3, int(row["input_length"]), int(row["output_length"]), hashes

    lines = islice(_each(_json_lines(file), understood), ROWS_AT_MOST)
    rows = sorted((row for row in lines if row[1] > 0 and row[2] > 0), key=lambda row: row[0])
    return Trace(
        _counts(row[1] for row in rows),
        _counts(row[2] for row in rows),
        _spread(np.array([row[0] for row in rows])),
        tuple(row[3] for row in rows),
    )


def _spread(stamps_s: FloatArray) -> FloatArray:
    """Times in which requests of one stamp come evenly until the next stamp, at most a batch later. Ascending."""
    stamp_s, start, size = np.unique(stamps_s, return_index=True, return_counts=True)
    until_next_s = np.minimum(np.diff(stamp_s, append=np.inf), BATCH_S)
    place = np.arange(len(stamps_s)) - np.repeat(start, size)
    spread: FloatArray = stamps_s + place * np.repeat(until_next_s / size, size)
    return spread


def _array(file: TextIO) -> Trace:
    return _texts(_each(((f"row {number}", row) for number, row in enumerate(json.load(file), 1)), row_of))


def _lines(file: TextIO) -> Trace:
    return _texts(_each(_json_lines(file), lambda line: row_of(json.loads(line))))


def _texts(rows: Iterable[Asked | None]) -> Trace:
    asked = list(islice((row for row in rows if row is not None), ROWS_AT_MOST))
    chats = tuple(row.chat for row in asked)
    return Trace(prompt_lengths(chats), _counts(row.output_tokens for row in asked), chats=chats)


def _counts(tokens: Iterable[int]) -> IntArray:
    return np.fromiter(tokens, dtype=np.int64)
