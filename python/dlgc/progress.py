"""Progress of a long run: a bar on a terminal, quiet lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlgc.terminal import DIM, RESET, say, talk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlgc.api import Progress

LOG_SECONDS = 10.0
BAR_SECONDS = 0.1
RATE_SECONDS = 15.0
"""The rate is that of the last so many seconds: an interrupted run passes quickly over what it has already done."""
LEAST_BAR = 8


@dataclass(frozen=True)
class State:
    """How far a run is: stored bytes read, of how many if that is known, and what became of the records."""

    read: int
    total: int | None
    records: int
    compiled: int
    rejected: int


class Rate:
    """Bytes a second, lately."""

    def __init__(self, now: float) -> None:
        """Begins at a moment, with nothing read."""
        self._seen = deque([(now, 0)])

    def add(self, now: float, read: int) -> float:
        """Takes how much has been read by now; returns the rate."""
        self._seen.append((now, read))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_SECONDS:  # noqa: PLR2004  # first and last
            self._seen.popleft()
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / max(end - start, 1e-9)


def line(state: State, rate: float) -> str:
    """Returns the words: share, records, rate, time left."""
    words = (
        f"{state.records:,} records, {state.compiled:,} compiled, {state.rejected:,} rejected, {rate / 1e6:.1f} MB/s"
    )
    if not state.total:
        return words
    left = clock((state.total - state.read) / max(rate, 1.0))
    return f"{100 * state.read / state.total:3.0f} %  {words}, {left} left"


def bar(doing: str, state: State, rate: float, width: int, *, color: bool = True) -> str:
    """Returns one frame, never wider than `width` columns."""
    words = line(state, rate)
    room = width - len(doing) - len(words) - 4
    if not state.total or room < LEAST_BAR:
        return f"{doing} {words}"[: width - 1]
    room = min(room, 40)
    filled = round(room * min(state.read / state.total, 1))
    dim, reset = (DIM, RESET) if color else ("", "")
    return f"{doing} {'━' * filled}{dim}{'─' * (room - filled)}{reset} {words}"


@contextmanager
def progress(doing: str) -> Iterator[Progress]:
    """Shows progress while a run goes on: a bar on a terminal, a line every ten seconds in a log."""
    drawn = sys.stderr.isatty()
    last = time.monotonic()
    rate = Rate(last)

    def tick(read: int, total: int | None, records: int, compiled: int, rejected: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (BAR_SECONDS if drawn else LOG_SECONDS):
            return
        last = now
        state, lately = State(read, total, records, compiled, rejected), rate.add(now, read)
        if drawn:
            talk(f"\r\033[K{bar(doing, state, lately, shutil.get_terminal_size().columns)}")
        else:
            say(f"{doing}: {line(state, lately)}")

    try:
        yield tick
    finally:
        if drawn:
            talk("\r\033[K")


def clock(seconds: float) -> str:
    """Returns a duration as people write it: 0:07, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
