"""Compares the methods of packing: rows and utilisation on real and on made-up lengths, beside TRL's own packing.

    python scripts/packing.py --data DIR --tokenizer DIR --output specs/packing.md

Real lengths are those of `dlgc compile` on sets of dialogues, up to the longest row; rows longer than a `max_length`
are left out there, as the compiler would. Fails where `bfd-global` takes more rows than TRL, or `bfd` uses more than
half a point less of the room.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import trl

import dlgc
from dlgc import _dlgc

LENGTHS = (512, 1024, 2048, 4096)
METHODS = ("none", "bfd", "bfd-global", "trl-bfd")
POINTS = 0.5
"""By which `bfd` may use less of the room than TRL, in per cent of it."""
SETS = {
    "MultiWOZ 2.1": "multiwoz21",
    "CrossWOZ": "crosswoz",
    "KdConv": "kdconv",
    "OpenAssistant": "oasst",
    "Topical-Chat": "topical-chat",
    "SGD": "sgd",
    "tau-bench": "tau-bench",
    "ToolBench": "toolbench",
    "LLaMA-Factory": "llamafactory",
}
"""Folders of real sets by name."""
MOST = 20_000
"""Lengths of a set that are packed, at most."""


def made_up() -> dict[str, list[int]]:
    """Lengths after distributions that bear no relation to dialogues, in few and in many."""
    chance = random.Random(20261123)  # noqa: S311  # lengths, not secrets

    def normal(count: int) -> list[int]:
        return [max(1, int(chance.lognormvariate(5.5, 0.9))) for _ in range(count)]

    return {
        "log-normal, 300": normal(300),
        "log-normal, 1,000": normal(1000),
        "log-normal, 20,000": normal(20_000),
        "uniform 1 to 512, 20,000": [chance.randint(1, 512) for _ in range(20_000)],
        "a sixth to a half of 512, 20,000": [chance.randint(86, 256) for _ in range(20_000)],
        "three lengths, 5,000": chance.choices((129, 190, 301), k=5000),
        "equal halves of 512, 1,001": [256] * 1001,
    }


def real(data: Path, tokenizer: Path, folder: Path) -> dict[str, list[int]]:
    """Lengths of the rows of real sets, in their order."""
    found = {}
    for name, path in SETS.items():
        if not (data / path).is_dir():
            continue
        out = folder / path
        dlgc.compile(data / path, out, tokenizer=tokenizer, max_length=max(LENGTHS), max_rejects=1.0)
        lengths = dlgc.scan(out).select("input_ids").collect()["input_ids"].list.len().to_list()
        if lengths:
            found[f"{name}, {min(len(lengths), MOST):,}"] = lengths[:MOST]
        print(f"{name}: {len(lengths):,} rows", file=sys.stderr)
    return found


def by_trl(lengths: list[int], max_length: int) -> int:
    """Rows that TRL packs examples of these lengths into."""
    values = np.zeros(sum(lengths), dtype=np.int32)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    table = pa.table({"input_ids": pa.LargeListArray.from_arrays(offsets, values)})
    return len(trl.pack_dataset(datasets.Dataset(table), max_length, "bfd"))


def rows_of(lengths: list[int], max_length: int) -> dict[str, int]:
    """Rows by method, TRL among them."""
    rows = {method: len(_dlgc.pack_lengths(method, lengths, max_length)) for method in METHODS}
    return {**rows, "TRL": by_trl(lengths, max_length)}


def compare(sets: dict[str, list[int]]) -> tuple[list[str], list[str]]:
    """Returns the lines of the table, and what is not as it must be."""
    lines = [
        f"| lengths | `max_length` | {' | '.join(f'`{method}`' for method in METHODS)} | TRL |",
        f"|---|---|{'---|' * (len(METHODS) + 1)}",
    ]
    problems = []
    for name, every in sets.items():
        for max_length in LENGTHS:
            lengths = [length for length in every if length <= max_length]
            if not lengths:
                continue
            rows = rows_of(lengths, max_length)
            used = {method: 100 * sum(lengths) / (count * max_length) for method, count in rows.items()}
            cells = (f"{count:,} ({used[method]:.2f} %)" for method, count in rows.items())
            lines.append(f"| {name} | {max_length:,} | {' | '.join(cells)} |")
            where = f"{name} at {max_length}: {rows}"
            if rows["bfd-global"] > rows["TRL"]:
                problems.append(f"`bfd-global` takes more rows than TRL: {where}")
            if used["bfd"] < used["TRL"] - POINTS:
                problems.append(f"`bfd` uses {used['TRL'] - used['bfd']:.2f} points less than TRL: {where}")
            if rows["trl-bfd"] != rows["TRL"]:
                problems.append(f"`trl-bfd` does not pack as TRL: {where}")
    return lines, problems


HEAD = """# How full packed rows are

Rows, and the share of rows times `max_length` that is tokens, by method of packing; beside them TRL {trl} itself
(`pack_dataset(…, strategy="bfd")`). Real sets are compiled with Qwen3's tokenizer and template, at most {most:,} rows
of each, in their order; the number behind a name is that of the rows of up to {longest:,} tokens. Written by
`scripts/packing.py`, which fails where `bfd-global` takes more rows than TRL or `bfd` uses {points} points less of the
room.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real sets; without it lengths are made up")
    parser.add_argument("--tokenizer", type=Path, default=Path("builtin"), help="default: the built-in one")
    parser.add_argument("--output", type=Path, help="where the page is written")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        sets = real(arguments.data, arguments.tokenizer, Path(folder)) if arguments.data else {}
    lines, problems = compare({**sets, **made_up()})
    head = HEAD.format(trl=trl.__version__, most=MOST, longest=max(LENGTHS), points=POINTS)
    page = head + "\n".join(lines) + "\n"
    print(page)
    for problem in problems:
        print(problem, file=sys.stderr)
    if arguments.output and not problems:
        arguments.output.write_text(page, encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
