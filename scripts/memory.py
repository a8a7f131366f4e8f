"""Measures peak memory of compilations against the size of their input: it must not grow with it.

Inputs of records of at most 1 MB, 20 MB and 2 GB in all, as lines, gzipped, and as one JSON array; and inputs of a few
large records, with which the figure may grow. Workers meet large records at the same time by chance, and the longer a
run the surer: the small inputs are compiled several times, and the highest peak is shown, with the lowest. Prints a
table; nothing is written but in a temporary folder.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = [
    f"{head}{tail}" for head in ("sta", "for", "mi", "re", "con", "ba") for tail in ("tion", "mer", "nd", "ly", "g")
]
SIZES = (2_000, 2_000, 2_000, 20_000, 200_000, 1_000_000)
"""Bytes of records, by turns: most bytes are in the large ones."""
SMALL = 20_000_000
"""Bytes of the small inputs."""


def record(number: int, size: int, chance: random.Random) -> bytes:
    """A dialogue of about that many bytes, and never more."""
    said = " ".join(chance.choices(WORDS, k=max(size // 12, 8)))
    messages = []
    for start in range(0, len(said), 4000):
        messages.append({"role": "user", "content": f"question {number}"})
        messages.append({"role": "assistant", "content": said[start : start + 4000]})
    return json.dumps({"id": f"r{number}", "messages": messages}).encode()


def records(total: int, sizes: tuple[int, ...]) -> Iterator[bytes]:
    """Yields records until they are that many bytes together."""
    chance = random.Random(1)  # noqa: S311  # content, not secrets
    pool = [record(number, size, chance) for number, size in enumerate(sizes * (4 if len(sizes) > 1 else 1))]
    written = number = 0
    while written < total:
        found = pool[number % len(pool)].replace(b"question", b"question %d," % number, 3)
        written += len(found)
        number += 1
        yield found


def write(file: BinaryIO, total: int, sizes: tuple[int, ...], form: str) -> None:
    """Writes lines, or one array."""
    opened, between, closed = (b"[", b",\n", b"]") if form == "array" else (b"", b"\n", b"\n")
    file.write(opened)
    file.writelines((between if number else b"") + found for number, found in enumerate(records(total, sizes)))
    file.write(closed)


def peak(path: Path, out: Path, threads: int, tokenizer: str) -> tuple[float, float]:
    """Compiles a file; peak resident memory in MB, and seconds."""
    command = [sys.executable, "-m", "dlgc", "compile", str(path), "-o", str(out), "--tokenizer", tokenizer]
    command += ["--max-length", "none", "--threads", str(threads), "--max-record-bytes", str(1 << 30)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said = process.stderr.read() if process.stderr else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(said.decode())
    shutil.rmtree(out)
    return used.ru_maxrss / 1000, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=2_000_000_000, help="bytes of the large input")
    parser.add_argument("--runs", type=int, default=10, help="compilations of each small input")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer", default="builtin", help="a folder; a fast one makes the run a short one")
    parser.add_argument("--folder", help="where to write; it needs room for the input and the dataset")
    arguments = parser.parse_args()
    cases = [
        ("lines", SMALL, SIZES),
        ("gzip", SMALL, SIZES),
        ("array", SMALL, SIZES),
        ("lines", arguments.large, SIZES),
        ("gzip", arguments.large, SIZES),
        ("array", arguments.large, SIZES),
        ("lines", 64_000_000, (16_000_000,)),
        ("lines", 128_000_000, (16_000_000,)),
        ("lines", 128_000_000, (64_000_000,)),
    ]
    print("| input | of | largest record | peak RSS | MB/s |\n| --- | --: | --: | --: | --: |", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for form, total, sizes in cases:
            path = Path(name, "raw")
            with gzip.open(path, "wb", compresslevel=1) if form == "gzip" else path.open("wb") as file:
                write(file, total, sizes, form)  # type: ignore[arg-type]  # a gzip file is one too
            runs = arguments.runs if total == SMALL else 1
            found = [peak(path, Path(name, "out"), arguments.threads, arguments.tokenizer) for _ in range(runs)]
            used, seconds = max(used for used, _ in found), min(seconds for _, seconds in found)
            lowest = f" ({min(used for used, _ in found):,.0f} in the lowest of {runs})" if runs > 1 else ""
            largest = max(sizes) / 1e6
            print(
                f"| {form} | {total / 1e6:,.0f} MB | {largest:.0f} MB | {used:,.0f} MB{lowest} | "
                f"{total / 1e6 / seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
