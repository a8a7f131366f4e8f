"""Kills compilations with SIGKILL at random moments, over the options, and lets each one go on.

After a kill there must be no dataset, or a whole one; the same command then goes on to the end, and every byte is that
of a run that was never interrupted. The moments, the options and the corpus follow from the seed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import dlgc

FORMATS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "formats"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "dialogues"
OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--target", "template"),
    ("--mask", "template"),
    ("--mask", "hf-compat"),
    ("--train-on", "last_turn"),
    ("--state", "json-after"),
    ("--state", "json-before"),
    ("--state", "context"),
    ("--control-tokens", "text,user=reject"),
    ("--control-tokens", "allow"),
    ("--max-length", "300"),
    ("--max-length", "none"),
    ("--max-length", "200", "--min-context", "1.0", "--summary", "extract"),
    ("--max-length", "200", "--window", "last", "--summary", "state", "--summary-place", "user"),
    ("--max-length", "200", "--window", "truncate", "--summary", "none"),
    ("--max-length", "200", "--window", "drop"),
    ("--max-length", "200", "--window", "reject"),
    ("--max-length", "120", "--long-turns", "cut", "--min-context", "0", "--packing", "bfd"),
    ("--max-record-bytes", "3000"),
    ("--date", "2026-11-23"),
    ("--template-kwargs", '{"enable_thinking": false}'),
    ("--strict",),
    ("--threads", "1"),
    ("--threads", "5"),
    ("--shard-tokens", "2000"),
    ("--shard-tokens", "60000"),
    ("--split", "validation=0.2,test=0.1", "--folds", "3"),
    ("--split", "validation=0.2", "--stratify", "type"),
    ("--where", "type <> 'chat'"),
    ("--assistant", "both"),
    ("--packing", "bfd"),
    ("--packing", "trl-bfd", "--max-length", "600"),
    ("--packing", "bfd-global"),
    ("--packing", "bfd", "--shard-tokens", "2000", "--split", "validation=0.2,test=0.1"),
    ("--packing", "trl-bfd", "--shard-tokens", "60000", "--threads", "5"),
    ("--packing", "bfd-global", "--shard-tokens", "2000", "--split", "validation=0.2,test=0.1"),
)
SPLITS = ("train", "train", "validation", "test")


@dataclass
class Tally:
    """What became of the runs."""

    killed: int = 0
    whole: int = 0
    continued: int = 0
    records: int = 0
    options: set[tuple[str, ...]] = field(default_factory=set)


class BrokenPromiseError(Exception):
    """A run left or made what it must not."""


def must(holds: bool, otherwise: str) -> None:  # noqa: FBT001  # a condition
    """Fails unless a promise holds."""
    if not holds:
        raise BrokenPromiseError(otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261123)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        start = time.monotonic()
        found = run(Path(name), arguments.kills, arguments.seed)
        minutes = (time.monotonic() - start) / 60
        print(
            f"seed {arguments.seed}: {found.killed} runs killed, over {len(found.options)} sets of options; "
            f"{found.whole} had left a whole dataset, {found.continued} went on from a checkpoint "
            f"({found.records:,} records not compiled again); every re-run came to the bytes of an uninterrupted run "
            f"({minutes:.1f} minutes)"
        )


def run(folder: Path, kills: int, seed: int) -> Tally:
    """Kills that many runs; fails with a `BrokenPromiseError` where anything is not as it must be."""
    chance = random.Random(seed)  # noqa: S311  # moments and options, not secrets
    raw = corpus(folder / "raw")
    found = Tally()
    uninterrupted: dict[tuple[str, ...], tuple[dict[str, bytes], float]] = {}
    while found.killed < kills:
        options = OPTIONS[len(found.options)] if len(found.options) < len(OPTIONS) else chance.choice(OPTIONS)
        out = folder / "out"
        command = [sys.executable, "-m", "dlgc", "compile", str(raw), "-o", str(out), "--max-rejects", "1"]
        command += ["--tokenizer", "builtin", "--shard-tokens", "12000", *options]
        if options not in uninterrupted:
            begun = time.monotonic()
            subprocess.run(command, capture_output=True, check=False)
            uninterrupted[options] = (contents(out), time.monotonic() - begun)
            shutil.rmtree(out)
        expected, duration = uninterrupted[options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, duration))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            shutil.rmtree(out, ignore_errors=True)
            continue  # it had come to its end
        found.killed += 1
        found.options.add(options)
        if (out / "manifest.json").exists():
            must(not dlgc.verify(out).problems, "a dataset that is not sound was left")
            found.whole += 1
        report = dlgc_compile(command, out)
        found.continued += report > 0
        found.records += report
        must(contents(out) == expected, f"{options}: the re-run came to other bytes")
        shutil.rmtree(out)
    return found


def dlgc_compile(command: list[str], out: Path) -> int:
    """Runs the command again; the records that it did not compile again."""
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode == 2:  # noqa: PLR2004  # the run failed: only where the killed one had come to its end
        must("already holds a dataset" in done.stderr, done.stderr)
        must(not (out / ".dlgc-incomplete").exists(), "a whole dataset has a journal, and could go on")
        return 0
    return int(json.loads(done.stdout)["resumed"])


def corpus(folder: Path) -> Path:
    """Writes the examples again and again, under ids of their own, in several containers, a tenth of them broken."""
    records = []
    for path in sorted(EXAMPLES.glob("*.jsonl")):
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = []
    for number in range(4 * len(records)):
        record = {**records[number % len(records)], "id": f"r{number}"}
        if number % 3:
            record["split"] = SPLITS[number % 11 % len(SPLITS)]
        text = json.dumps(record, ensure_ascii=False)
        lines.append(text if number % 10 else text[: len(text) // 2])
    third = len(lines) // 3
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("\n".join(lines[:third]), encoding="utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[third : 2 * third]).encode())[:-9])
    sound = [line for number, line in enumerate(lines[2 * third :], start=2 * third) if number % 10]
    (folder / "c.json").write_text(f"[{','.join(sound)}]", encoding="utf-8")
    # Speakers without roles, and a dialogue that is read with what lies beside it.
    talks = [[("Mia", f"{number}?"), ("Leo", "Yes."), ("Mia", "Good.")] for number in range(40)]
    said = [
        {"id": f"s{at}", "turns": [{"speaker": who, "text": what} for who, what in talk]}
        for at, talk in enumerate(talks)
    ]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    shutil.copytree(FORMATS / "api-bank", folder / "e")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
