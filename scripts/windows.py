"""Windows of long real dialogues, beside what truncation leaves of them, and what they cost: `specs/windows.md`.

For sets whose dialogues are long, at several budgets: windows, turns trained and lost by code, the share of earlier
messages that a turn still sees, compiled against source tokens, how full rows are, and the turns that remain where rows
are cut at the budget as trainers do (`--window truncate --target template`, TRL's `keep_start`). Then how the time of
one dialogue grows with its length, and the speed, in output tokens a second beside the same data without: with rows cut
at the same budget, and without a budget. It is taken with the template that TRL trains Qwen3 with, under which a
dialogue is a row, and with Qwen3's own, under which each turn is one. There, without a budget, most output repeats what
came before (of `byu-chitchat` 52 times the source), and such copies cost next to nothing: the smaller the budget, the
fewer of them there are to set against planning. The bound of 75 % is kept against both, but there, at the smallest
budget, only against rows that are cut. Exit status 1 if a turn is lost without a code of length, or a bound is missed.
"""

from __future__ import annotations

import argparse
import math
import shutil
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
# Where each turn is a row, the bound against no budget holds from this budget on: see the module.
BOUND_FROM = 1024
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
    """Output tokens a second with windows and packing, beside the same data without, by turns.

    Without means twice: the same budget, but rows cut at it (`--window truncate`) and not packed, and no budget at all.
    Output tokens are those of the rows. Where the head alone (system message, tools) of most dialogues is longer than
    the budget there is next to no output, and the tokens of the dialogues read count. Without a template it is the
    model's own.
    """
    columns = [
        *("set", "budget", "with windows and packing", "rows cut at the budget", "share", "no budget", "share"),
        "source tokens/s, share of no budget",
    ]
    lines = [f"| {' | '.join(columns)} |", "| --- " + "| --: " * 7 + "|"]
    wrong = []
    modes: dict[str, dict[str, Any]] = {
        "windows": {"packing": "bfd"},
        "cut": {"window": "truncate"},
    }
    cases = [("none", "none"), *((length, mode) for length in LENGTHS for mode in modes)]
    with tempfile.TemporaryDirectory() as folder:
        for name in SETS:
            times: dict[Any, list[float]] = {case: [] for case in cases}
            reports: dict[Any, Any] = {}
            for number in range(rounds):
                for length, mode in cases:
                    options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": length, "max_rejects": 1.0}
                    if template:
                        options["chat_template"] = str(template)
                    out = Path(folder, f"{name}-{length}-{mode}-{number}")
                    start = time.monotonic()
                    report = dlgc.compile(DATA / name, out, threads=1, **options, **modes.get(mode, {}))
                    times[length, mode].append(time.monotonic() - start)
                    reports[length, mode] = report
                    shutil.rmtree(out)
            seconds = {case: statistics.median(found) for case, found in times.items()}
            free = reports["none", "none"]
            rates = {case: report.tokens / seconds[case] for case, report in reports.items()}
            for length in LENGTHS:
                windows = (length, "windows")
                of_cut, of_free = (rates[windows] / rates[case] for case in ((length, "cut"), ("none", "none")))
                of_source = seconds["none", "none"] / seconds[windows]
                lines.append(
                    f"| {name} | {length:,} | {rates[windows]:,.0f} "
                    f"| {rates[length, 'cut']:,.0f} | {100 * of_cut:.0f} % "
                    f"| {rates['none', 'none']:,.0f} | {100 * of_free:.0f} % | {100 * of_source:.0f} % |"
                )
                print(lines[-1], flush=True)
                fit = 2 * reports[windows].ledger["turns"]["trained"] >= free.ledger["turns"]["trained"]
                bounds = [of_cut, of_free] if template or length >= BOUND_FROM else [of_cut]
                if min(bounds if fit else [of_source]) < LEAST_SPEED:
                    wrong.append(f"{name} at {length}: {bounds} of the speed without, {of_source} in source tokens")
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
