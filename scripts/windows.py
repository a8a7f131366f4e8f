"""Windows of long real dialogues, beside what truncation leaves of them, and what they cost: `specs/windows.md`.

For sets whose dialogues are long, at several budgets: windows, turns trained and lost by code, the share of earlier
messages that a turn still sees, compiled against source tokens, how full rows are, and the turns that remain where rows
are cut at the budget as trainers do (`--window truncate --target template`, TRL's `keep_start`). Then how the time of
one dialogue grows with its length, and the speed, in output tokens a second beside the same data without a budget: with
the template that TRL trains Qwen3 with, under which a dialogue is a row, and with Qwen3's own, under which each turn is
one. There most output repeats what came before, without a budget three times as much of it as with one, and such copies
cost next to nothing; the bound is the same. Exit status 1 if a turn is lost without a
code of length, or a bound is missed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_tokenizers
from scaling import dialogue

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
TARGET = ROOT / "specs" / "windows.md"
TRAINING = ROOT.parent / "shared" / "templates" / "trl" / "qwen3_training.jinja"
SETS = ("tau-bench", "byu-chitchat", "topical-chat", "kdconv", "crosswoz")
LENGTHS = (512, 1024, 4096)
# What a turn may be left out for: it, or what every window shows, is longer than the budget.
OF_LENGTH = {"turn-too-long", "head-too-long"}
LARGEST_EXPONENT = 1.2
LEAST_SPEED = 0.75
MESSAGES = (100, 200, 500, 1000, 2000, 5000, 10_000)
# Short dialogues are compiled several times over, or loading the tokenizer would be all that is measured.
AT_LEAST = 20_000


def table(tokenizer: str, lengths: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """The rows of the table, and what is wrong with them."""
    columns = (
        *("set", "budget", "dialogues cut", "windows", "turns trained", "lost, by code", "earlier messages seen"),
        *("amplified", "rows full", "turns that truncation leaves"),
    )
    lines = [f"| {' | '.join(columns)} |", "| --- | --: | --: | --: | --: | --- | --: | --: | --: | --: |"]
    wrong = []
    for name in SETS:
        common: dict[str, Any] = {"tokenizer": tokenizer, "max_rejects": 1.0}
        free = dlgc.check(DATA / name, max_length="none", **common)
        for length in lengths:
            cover = dlgc.check(DATA / name, max_length=length, **common)
            cut = dlgc.check(DATA / name, max_length=length, window="truncate", target="template", **common)
            turns, windows = cover.ledger["turns"], cover.windows
            before = free.ledger["turns"]["untrained"]
            lost = {code: count - before.get(code, 0) for code, count in turns["untrained"].items()}
            lost = {code: count for code, count in lost.items() if count}
            if set(lost) - OF_LENGTH or turns["total"] != free.ledger["turns"]["total"]:
                wrong.append(f"{name} at {length}: {lost}")
            codes = ", ".join(f"{count:,} `{code}`" for code, count in sorted(lost.items())) or "none"
            seen = windows["shown"] / windows["history"] if windows["history"] else 1.0
            trainable = free.ledger["turns"]["trained"]
            lines.append(
                f"| {name} | {length:,} | {windows['dialogues']:,} | {windows['windows']:,} | {turns['trained']:,} of "
                f"{trainable:,} | {codes} | {100 * seen:.0f} % | {cover.tokens / cover.source_tokens:.2f}x | "
                f"{100 * cover.tokens / (cover.rows * length):.0f} % | {cut.ledger['turns']['trained']:,} |"
            )
            print(lines[-1], flush=True)
    return lines, wrong


def speed(tokenizer: str, template: Path | None, rounds: int) -> tuple[list[str], list[str]]:
    """Tokens a second with windows and packing, beside the same data without, by turns.

    Output tokens are those of the rows; source tokens those of the dialogues read. Where the head alone (system
    message, tools) of most dialogues is longer than the budget there is next to no output, and the bound is on source
    tokens. Without a template it is the model's own.
    """
    columns = [
        *("set", "budget", "output tokens/s without", "with windows and packing", "share"),
        *("source tokens/s without", "with", "share"),
        "bound on",
    ]
    lines = [f"| {' | '.join(columns)} |", "| --- " + "| --: " * 7 + "| --- |"]
    wrong = []
    lengths: tuple[int | str, ...] = ("none", 1024, 4096)
    with tempfile.TemporaryDirectory() as folder:
        for name in SETS:
            output: dict[int | str, list[float]] = {length: [] for length in lengths}
            source: dict[int | str, list[float]] = {length: [] for length in lengths}
            reports = {}
            for number in range(rounds):
                for length in lengths:
                    options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": length, "max_rejects": 1.0}
                    if template:
                        options["chat_template"] = str(template)
                    if length != "none":
                        options["packing"] = "bfd"
                    out = Path(folder, f"{name}-{length}-{number}")
                    start = time.monotonic()
                    report = reports[length] = dlgc.compile(DATA / name, out, threads=1, **options)
                    seconds = time.monotonic() - start
                    output[length].append(report.tokens / seconds)
                    source[length].append(reports["none"].source_tokens / seconds)
            trained = {length: report.ledger["turns"]["trained"] for length, report in reports.items()}
            for length in lengths[1:]:
                figures, bounds = [], []
                for rates in (output, source):
                    without, found = statistics.median(rates["none"]), statistics.median(rates[length])
                    figures.append(f"{without:,.0f} | {found:,.0f} | {100 * found / without:.0f} %")
                    bounds.append(found / without)
                by_output = 2 * trained[length] >= trained["none"]
                bound = "output" if by_output else f"source: {trained[length]:,} of {trained['none']:,} turns fit"
                lines.append(f"| {name} | {length:,} | {' | '.join(figures)} | {bound} |")
                print(lines[-1], flush=True)
                if bounds[0 if by_output else 1] < LEAST_SPEED:
                    wrong.append(f"{name} at {length}: {bounds} of the speed without")
    return lines, wrong


def growth(tokenizer: str) -> tuple[list[str], list[str]]:
    """How the time of one dialogue grows with its output tokens: the fitted exponent."""
    lines = ["| summaries | seconds for " + " | ".join(f"{count:,}" for count in MESSAGES) + " messages | exponent |"]
    lines.append("| --- |" + " --: |" * (len(MESSAGES) + 1))
    wrong = []
    idle = math.inf
    for _ in range(5):  # loading the tokenizer
        start = time.process_time()
        _dlgc.Renderer(dlgc.CompileOptions(tokenizer=tokenizer).to_json())
        idle = min(idle, time.process_time() - start)
    for summary in ("none", "extract"):
        times, tokens = [], []
        for count in MESSAGES:
            best = math.inf
            with tempfile.TemporaryDirectory() as folder:
                raw = Path(folder, "raw.jsonl")
                copies = AT_LEAST // count
                raw.write_bytes((dialogue(count) + b"\n") * copies)
                for _ in range(3):
                    start = time.process_time()
                    report = dlgc.check(raw, tokenizer=tokenizer, max_length=1024, summary=summary, threads=1)
                    best = min(best, time.process_time() - start)
            times.append((best - idle) / copies)
            tokens.append(report.tokens / copies)
        logs = [(math.log(many), math.log(seconds)) for many, seconds in zip(tokens, times, strict=True)]
        exponent = statistics.linear_regression(*zip(*logs, strict=True)).slope
        lines.append(f"| {summary} | " + " | ".join(f"{seconds:.3f}" for seconds in times) + f" | {exponent:.2f} |")
        print(lines[-1], flush=True)
        if exponent > LARGEST_EXPONENT:
            wrong.append(f"summary {summary}: exponent {exponent:.2f}")
    return lines, wrong


def section(title: str) -> list[str]:
    """A section as it was written before."""
    written = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    _, _, found = written.partition(f"## {title}\n\n")
    return found.partition("\n\n##")[0].splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", choices=("table", "growth", "speed"), help="the other parts stay as they are"
    )
    parser.add_argument("--rounds", type=int, default=5, help="compilations for each figure of speed")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("skipped: the real data (../shared) is not here")
    tokenizer = str(real_tokenizers.folder("qwen3"))
    parts: dict[str, tuple[str, Callable[[], tuple[list[str], list[str]]]]] = {
        "Long real dialogues": ("table", lambda: table(tokenizer, LENGTHS)),
        "Growth": ("growth", lambda: growth(tokenizer)),
        "Speed, a row for a dialogue": ("speed", lambda: speed(tokenizer, TRAINING, arguments.rounds)),
        "Speed, a row for a turn": ("speed", lambda: speed(tokenizer, None, arguments.rounds)),
    }
    text = [
        "# Windows",
        "",
        f"Written by `scripts/windows.py`, dlgc {dlgc.__version__}, with Qwen3's tokenizer; with its template, but",
        "where a row is a dialogue. What the columns mean stands there and in [docs/windows.md](../docs/windows.md).",
    ]
    wrong = []
    for title, (name, measure) in parts.items():
        if arguments.only is None or name in arguments.only:
            lines, found = measure()
            wrong += found
        else:
            lines = section(title)
        text += ["", f"## {title}", "", *lines]
    TARGET.write_text("\n".join(text) + "\n", encoding="utf-8")
    if wrong:
        sys.exit("failed: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
