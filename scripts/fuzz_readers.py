"""Fuzzes the readers and the schema with libFuzzer, guided by coverage, and writes `specs/fuzz-readers.md`.

Three targets in `rust/dlgc-fuzz`: `source` (any bytes as a file), `json` (any bytes as a record, beside serde_json) and
`schema` (any record, beside the JSON Schema). The corpus lies in `tests/fixtures/fuzz/`, one archive a target, and is
replayed by a test; what a run adds to it is merged back, so that each run begins where the last one ended. Bugs are
planted in a copy of the sources, and have to be found from the seeds alone. The instruments are rustc's own, so no
nightly compiler is needed, only a C++ compiler for libFuzzer.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fuzz_proof
import real_tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
STORE = real_tokenizers.CACHE / "fuzz-readers"
KEPT = ROOT / "tests" / "fixtures" / "fuzz"
TARGETS = ("source", "json", "schema")
TRIPLE = "x86_64-unknown-linux-gnu"
INSTRUMENTS = (
    "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 "
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table "
    "-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
)
COVERED = ("source", "json", "import/", "validate/", "diagnostic/")
LONGEST = 8192


@dataclass(frozen=True)
class Plant(fuzz_proof.Plant):
    """A bug, and the target that must find it, if it is not too rare a case for a few minutes."""

    target: str
    rare: bool = False


PLANTS = (
    Plant(
        "a line that ends in a byte-order mark's first byte loses it",
        "source/cut.rs",
        "let kept = length.min(self.max_record_bytes);",
        'let ends = usize::from(self.buffer[self.at..self.at + length].ends_with(b"\\xef"));\n'
        "                let kept = (length - ends).min(self.max_record_bytes);",
        target="source",
    ),
    Plant(
        "an escaped quote ends a string when elements are told apart",
        "source/scan.rs",
        "b'\\\\' => self.escaped = true,",
        "b'\\\\' => self.escaped = false,",
        target="source",
    ),
    Plant(
        "a low surrogate may be missing",
        "json.rs",
        "if !(0xDC00..=0xDFFF).contains(&second) {",
        "if !(0xDC00..=0xDFFF).contains(&second) && second < 0xE000 {",
        target="json",
    ),
    Plant(
        "a weight may be two",
        "validate/shape.rs",
        "Ok(1.0) => {}",
        "Ok(1.0..=2.0) => {}",
        target="schema",
    ),
    Plant(
        "a list of objects may hold nulls",
        "validate/shape.rs",
        "elements.iter().find(|element| element.as_object().is_none())",
        "elements.iter().find(|element| element.as_object().is_none() && !element.is_null())",
        target="schema",
        rare=True,  # it needs a null between the brackets of one field of a record that is else right
    ),
)


def build(sources: Path, target_folder: Path) -> Path:
    """Builds the targets of a tree; the folder that they are in."""
    environment = dict(os.environ, RUSTFLAGS=INSTRUMENTS, CARGO_TARGET_DIR=str(target_folder))
    # The same versions as the product's; what only the targets need is resolved anew, so no lock of theirs is kept.
    shutil.copy(sources / "Cargo.lock", sources / "rust" / "dlgc-fuzz" / "Cargo.lock")
    command = ["cargo", "build", "--release", "--quiet", "--target", TRIPLE]
    subprocess.run(command, cwd=sources / "rust" / "dlgc-fuzz", env=environment, check=True)  # ours
    return target_folder / TRIPLE / "release"


def seeds(target: str, folder: Path) -> None:
    """Writes the fixtures of the project as a corpus; the first byte of a file for `source` says what it is called."""
    folder.mkdir(parents=True, exist_ok=True)
    records: list[bytes] = []
    fixtures = ROOT / "tests" / "fixtures"
    for path in sorted([*fixtures.glob("dialogues/*/*.jsonl"), *fixtures.glob("formats/**/*.json*")]):
        records += path.read_bytes().splitlines()
    if target != "source":
        # What the fixtures do not have: escapes, numbers of all kinds, a key twice.
        records.append(rb'{"\u00e9\n": "\ud83d\ude00", "n": [-0.0, 1e-7, 12345678901234567890], "n": {"": null}}')
        for number, record in enumerate(records):
            (folder / f"seed-{number}").write_bytes(record[:LONGEST])
        return
    few = [record[:300] for record in records[:6]]
    forms = [
        b"\n".join(few),
        b"[" + b",".join(few) + b"]",
        b"{" + b",".join(b'"d%d": %s' % (number, record) for number, record in enumerate(few)) + b"}",
        json.dumps([{"a": {"b": '"'}}, 1, None], indent=1).encode(),
        b'id,messages\n1,"a""b"\n2,c\n',
        b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n",
    ]
    for number, form in enumerate(forms):
        for kind in range(8):
            (folder / f"seed-{number}-{kind}").write_bytes(bytes([kind]) + form)
    wrapped = importlib.import_module("test_containers")  # they are small, and of every kind
    broken = {case: row[1] for case, row in wrapped.BROKEN.items()}
    for name, content in {**wrapped.WRAPPED, **broken}.items():
        if len(content) < LONGEST:
            (folder / f"wrapped-{name}").write_bytes(b"\0" + content)


def unpack(target: str, folder: Path) -> None:
    """Writes the kept corpus of a target."""
    archive = KEPT / f"{target}.tar.gz"
    if archive.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")


def keep(target: str, folder: Path, binary: Path) -> int:
    """Merges a corpus to the fewest files that reach the same, and keeps it; how many they are."""
    merged = folder.with_name(f"{folder.name}-merged")
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    command = [str(binary), "-merge=1", f"-max_len={LONGEST}", str(merged), str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # ours
    KEPT.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(merged.iterdir()):
            info = tarfile.TarInfo(path.name)
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    (KEPT / f"{target}.tar.gz").write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    return len(list(merged.iterdir()))


def words(folder: Path) -> Path:
    """Writes a dictionary: the fields of the native shape, and words of JSON that mutations hardly come to."""
    schema = json.loads((ROOT / "specs" / "dialogue.schema.json").read_text(encoding="utf-8"))
    fields = {*schema["properties"], *schema["$defs"]["message"]["properties"]}
    found = [f'"{field}": ' for field in sorted(fields)]
    found += ["null", "[null]", "[[]]", "{}", "true", "1e5", "-0", "\\ud83d", "\\ude00", "\\uffff"]
    path = folder / "words.dict"
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in found)
    path.write_text("".join(f'"{word}"\n' for word in quoted), encoding="utf-8")
    return path


def fuzz(binary: Path, corpus: Path, seconds: float, seed: int) -> tuple[bool, str]:
    """Runs a target; whether it found nothing, and what it printed at the end."""
    found = corpus.with_name(f"{corpus.name}-found")
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    command = [str(binary), f"-max_total_time={round(seconds)}", f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=20"]
    command.append(f"-dict={words(found)}")
    command += ["-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={found}/", str(corpus)]
    done = subprocess.run(command, check=False, capture_output=True)  # ours
    return done.returncode == 0, done.stderr.decode(errors="replace")


def numbers(said: str) -> dict[str, str]:
    """Picks what a run says of itself."""
    last = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)", said)[-1]
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", said)
    return {"edges": last[0], "features": last[1], "files": last[2], "executed": executed[1] if executed else "?"}


def plant(bug: Plant, minutes: float) -> str:
    """Plants a bug and looks for it from the seeds; after how many seconds it was found."""
    sources = STORE / "planted"
    shutil.rmtree(sources, ignore_errors=True)
    for part in ("rust", "specs"):
        shutil.copytree(ROOT / part, sources / part)
    shutil.copytree(ROOT / "examples", sources / "examples")
    for part in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / part, sources / part)
    bug.into(sources)
    binaries = build(sources, STORE / "planted-target")
    corpus = STORE / f"planted-{bug.target}"
    shutil.rmtree(corpus, ignore_errors=True)
    seeds(bug.target, corpus)
    started = time.monotonic()
    sound, said = fuzz(binaries / bug.target, corpus, 60 * minutes, 1)
    if sound:
        return "**not found**"
    message = re.search(r"panicked at [^\n]+\n([^\n]+)", said)
    what = message[1].replace("|", "\\|")[:80] if message else "?"
    return f"{time.monotonic() - started:.0f} s | `{what}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=21.0, help="for each of the three targets")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--patience", type=float, default=5.0, help="minutes in which a planted bug must be found")
    parser.add_argument("--only", choices=["run", "plants", "coverage"], help="one part, printed and not written")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    parts, failed = [HEAD], False
    if arguments.only in (None, "run"):
        text, failed = campaign(arguments.minutes, arguments.seed, arguments.targets)
        parts.append(text)
    if arguments.only in (None, "coverage"):
        parts.append(f"## What the corpus reaches\n\n{reached()}\n")
    if arguments.only in (None, "plants"):
        rows = ["| planted bug | in | target | found after | as |", "| --- | --- | --- | --: | --- |"]
        for bug in PLANTS:
            rows.append(f"| {bug.name} | `{bug.file}` | {bug.target} | {plant(bug, arguments.patience)} |")
            print(rows[-1], flush=True)
            failed |= "not found" in rows[-1] and not bug.rare
        parts.append("## Planted bugs\n\nFrom the seeds alone, without the kept corpus.\n\n" + "\n".join(rows) + "\n")
    text = "\n".join(parts)
    if arguments.only:
        print(text)
    else:
        (ROOT / "specs" / "fuzz-readers.md").write_text(text, encoding="utf-8")
    sys.exit(failed)


def campaign(minutes: float, seed: int, targets: Sequence[str]) -> tuple[str, bool]:
    """Runs the targets beside each other and keeps what they found; the table, and whether anything crashed."""
    binaries = build(ROOT, STORE / "target")
    for target in targets:
        corpus = STORE / target
        shutil.rmtree(corpus, ignore_errors=True)
        seeds(target, corpus)
        unpack(target, corpus)
    rows = ["| target | minutes | executions | edges | corpus | crashes |", "| --- | --: | --: | --: | --: | --- |"]
    failed = False
    with ThreadPoolExecutor(len(targets)) as pool:
        runs = [pool.submit(fuzz, binaries / target, STORE / target, 60 * minutes, seed) for target in targets]
        for target, run in zip(targets, runs, strict=True):
            sound, said = run.result()
            (STORE / f"{target}.log").write_text(said, encoding="utf-8")
            found = numbers(said)
            kept = keep(target, STORE / target, binaries / target)
            crash = "none" if sound else "**yes**"
            failed |= not sound
            executed = f"{int(found['executed']):,}" if found["executed"].isdigit() else "?"
            rows.append(f"| {target} | {minutes:g} | {executed} | {found['edges']} | {kept} files | {crash} |")
            print(rows[-1], flush=True)
    return (
        f"## The run\n\nSeed {seed}, the targets beside each other on {len(os.sched_getaffinity(0))} cores.\n\n"
        + "\n".join(rows)
        + "\n",
        failed,
    )


def reached() -> str:
    """Replays the kept corpus on a build that counts lines."""
    folder = fuzz_proof.build("instrumented")
    replay = (
        "import sys, tarfile, tempfile, pathlib, dlgc\n"
        "from dlgc import _dlgc\n"
        "renderer = _dlgc.Renderer('{}')\n"
        "for target in ('json', 'schema'):\n"
        "    for member in (archive := tarfile.open(f'{sys.argv[1]}/{target}.tar.gz')):\n"
        "        renderer.render(archive.extractfile(member).read())\n"
        "names = ['p.jsonl', 't.csv', 't.tsv', 's.parquet', 's.zip', 's.tar', 'x.jsonl.gz', 'x.jsonl.zst']\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    for member in (archive := tarfile.open(f'{sys.argv[1]}/source.tar.gz')):\n"
        "        content = archive.extractfile(member).read()\n"
        "        if content:\n"
        "            path = pathlib.Path(folder, names[content[0] % 8])\n"
        "            path.write_bytes(content[1:])\n"
        "            dlgc.check(path, max_record_bytes=4096)\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(folder / "python"), LLVM_PROFILE_FILE=str(folder / "run-%p.profraw"))
    subprocess.run([sys.executable, "-c", replay, str(KEPT)], env=environment, check=True)  # ours
    return fuzz_proof.coverage(folder, COVERED)


HEAD = """\
# Fuzzing of the readers and the schema

Written by `make fuzz-readers` (`scripts/fuzz_readers.py`, targets in `rust/dlgc-fuzz`). libFuzzer, guided by coverage:

- `source`: any bytes as a file of any name. Reading ends without a panic; an array is cut as serde_json cuts it, lines
  as line breaks do; the same bytes in gzip, zstd and tar give the same records and faults.
- `json`: any bytes as a record. What is taken is what serde_json takes (but for what dlgc refuses with a code of its
  own), and the same is read of it: keys in order, numbers as spelt, the last of a repeated key.
- `schema`: any record. The verdict on its shape is that of `dialogue.schema.json`; places lie inside the record.

The corpus is kept in `tests/fixtures/fuzz/` and replayed by a test. *Reached* is the share of lines that it executes.
"""


if __name__ == "__main__":
    main()
