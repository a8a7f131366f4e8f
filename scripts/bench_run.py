"""Runs a process and measures it: wall clock, processor time, peak memory; on as many processors as it may have."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BETWEEN_LOOKS = 0.5
"""Seconds between two looks at the memory of several processes."""


class FailedError(Exception):
    """A process did not end as it should; the message says how."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A process that ended well.

    Attributes:
        began: When it was started, as `time.monotonic` tells it in every process.
        wall: Seconds from its start to its end.
        processor: Seconds of processor time, its children's among them.
        peak: Most memory that it had, in MB: the system's own account of a process (resident), or the highest sum that
            was seen over it and its children (each page counted once, in equal shares).
        printed: What it said on standard output.
    """

    began: float
    wall: float
    processor: float
    peak: float
    printed: str


def read_once(path: Path) -> None:
    """Has the system read a file, so that whoever reads it next finds it in memory.

    The system of a virtual machine may take the memory of a file that nobody looks at; getting it back took 0.2 s for
    80 MB, where reading it takes 0.03 s.
    """
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def measure(
    command: list[str], processors: int, *, several: bool = False, environment: Mapping[str, str] | None = None
) -> Measured:
    """Runs a command on that many processors; `several` says that it has children whose memory counts.

    Raises:
        FailedError: It ended with another status than 0.
    """
    out, into = os.pipe()
    all_processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_processors)[:processors])
    try:
        # What runs the command is small: the system counts as a process's memory what its parent had when it was made.
        process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(into), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**_environment(), **(environment or {})},
            pass_fds=[into],
        )
    finally:
        os.sched_setaffinity(0, all_processors)
        os.close(into)
    said: list[str] = []
    with process, os.fdopen(out, encoding="utf-8") as report:
        listener = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        listener.start()
        watcher = _Watcher(process.pid) if several else None
        printed = process.stdout.read() if process.stdout else ""
        process.wait()
        listener.join()
        highest = watcher.stop() if watcher else 0.0
        found = json.loads(report.read() or "null")
    if found is None or found["status"] != 0:
        status = process.returncode if found is None else found["status"]
        raise FailedError(f"`{' '.join(command)[:200]}` ended with {status}: {''.join(said)[-2000:]}")
    peak = highest if several else found["peak"]
    return Measured(found["began"], found["wall"], found["processor"], peak, printed)


def _environment() -> dict[str, str]:
    """This process's, without what would have each process compile Python's modules anew, or write byte by byte."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


class _Watcher:
    """Looks at the memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._highest = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The highest sum seen, in MB."""
        self._stopped.set()
        self._thread.join()
        return self._highest

    def _watch(self) -> None:
        while not self._stopped.wait(BETWEEN_LOOKS):
            _, *family = _family(self._pid)  # without the one that only runs the command
            self._highest = max(self._highest, sum(map(_share, family)) * 1024 / 1e6)


def _family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        for path in Path("/proc", str(one), "task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue  # it has ended
    return found


def _share(pid: int) -> int:
    """The memory of a process in kB, pages that several have counted in equal shares."""
    try:
        text = Path("/proc", str(pid), "smaps_rollup").read_text()
    except OSError:
        return 0  # it has ended
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    """Runs the command of the arguments, and writes what it took into an open file."""
    into, *command = sys.argv[1:]
    began = time.monotonic()
    with subprocess.Popen(command, close_fds=True) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    took = {"began": began, "wall": wall, "processor": usage.ru_utime + usage.ru_stime}
    took |= {"peak": usage.ru_maxrss * 1024 / 1e6, "status": process.returncode}
    with os.fdopen(int(into), "w", encoding="utf-8") as report:
        json.dump(took, report)


if __name__ == "__main__":
    main()
