"""Proves the fuzzer: what share of the core it reaches, and that it finds planted bugs. Writes `specs/fuzz.md`.

A copy of the sources is built in the cache, for coverage with instruments in the two crates of this project, for each
planted bug with that one change. The working tree is never touched; dependencies are built once, in the tree's own
`target`. Needs cargo, and for the coverage `cov` (`cargo install llvm_profparser`), which reads what rustc writes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import real_tokenizers

ROOT = Path(__file__).resolve().parent.parent
STORE = real_tokenizers.CACHE / "fuzz"
COVERED = ("template/", "tokenize/")


@dataclass(frozen=True)
class Plant:
    """A bug: what it is, where, and the change that makes it."""

    name: str
    file: str
    right: str
    wrong: str

    def into(self, tree: Path) -> None:
        """Makes the change in a copy of the tree."""
        path = tree / "rust" / "dlgc" / "src" / self.file
        source = path.read_text(encoding="utf-8")
        if self.right not in source:
            sys.exit(f"`{self.right}` does not stand in {self.file} any more: the plant is out of date")
        path.write_text(source.replace(self.right, self.wrong), encoding="utf-8")


# Each changes what is trained or rendered. A bug in one of two checks that guard the same changes nothing: with the
# comparison of prompt ids left out, or that of the row's text, the other one still sends the turn to a row of its own.
PLANTS = (
    Plant(
        "the stop token is left out of targets",
        "template/law.rs",
        "let text = &turn[..length];",
        "let text = &turn[..length - outline.stop];",
    ),
    Plant(
        "the token after the stop is trained too",
        "tokenize/rows.rs",
        "        self.label(tokens);\n        self.trained",
        "        self.label(&(tokens.start..(tokens.end + 1).min(self.labels.len())));\n        self.trained",
    ),
    Plant(
        "`tojson` writes no space after a comma",
        "template/machine/filters.rs",
        "out.push_str(&self.separators[0]);",
        "out.push_str(self.separators[0].trim_end());",
    ),
)


def build(name: str, plant: Plant | None = None) -> Path:
    """A copy of the package with an extension that is instrumented or has a planted bug; the folder for PYTHONPATH."""
    folder = STORE / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("rust", "python"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for part in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / part, folder / part)
    for part in ("scripts", "specs", "README.md", "LICENSE"):
        (folder / part).symlink_to(ROOT / part)
    environment = dict(os.environ, CARGO_TARGET_DIR=str(ROOT / "target"))
    if plant is None:
        # Only the crates of this workspace, so that the counters are about them.
        wrapper = folder / "instrumented"
        wrapper.write_text('#!/bin/sh\ncompiler="$1"\nshift\nexec "$compiler" "$@" -C instrument-coverage\n')
        wrapper.chmod(0o755)
        environment["RUSTC_WORKSPACE_WRAPPER"] = str(wrapper)
    else:
        plant.into(folder)
    command = ["cargo", "build", "--release", "--quiet", "--package", "dlgc-python"]
    subprocess.run(command, cwd=folder, env=environment, check=True)  # ours
    built = ROOT / "target" / "release" / "lib_dlgc.so"
    shutil.copy(built, folder / "python" / "dlgc" / "_dlgc.abi3.so")
    return folder


def fuzz(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs the fuzzer on such a build: its exit status and what it printed."""
    environment = dict(
        os.environ,
        PYTHONPATH=f"{folder / 'python'}:{ROOT / 'scripts'}",
        LLVM_PROFILE_FILE=str(folder / "run-%p.profraw"),
    )
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)  # ours
    return done.returncode, done.stdout + done.stderr[-2000:] * (done.returncode not in (0, 1))


def coverage(folder: Path, covered_in: tuple[str, ...] = COVERED) -> str:
    """Lines of the core that the runs reached whose profiles lie in a folder of a build, by file, as a table."""
    if shutil.which("cov") is None:
        return "Not measured: `cov` is not here (`cargo install llvm_profparser`)."
    command = ["cov", "show", "--object", str(folder / "python" / "dlgc" / "_dlgc.abi3.so")]
    for path in sorted(folder.glob("*.profraw")):
        command += ["--instr-profile", str(path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # ours
    counts: dict[str, list[int]] = {}
    name = ""
    for line in shown.splitlines():
        if line.endswith(".rs"):
            name = line.strip().partition("dlgc/src/")[2]
        elif found := re.match(r"\s*\d+\|\s*(\d+)\|", line):
            counts.setdefault(name, []).append(int(found[1]))
    covered = {name: lines for name, lines in counts.items() if name.startswith(covered_in) and "gguf" not in name}
    covered["**together**"] = [count for lines in covered.values() for count in lines]
    rows = ["| file | lines | reached |", "| --- | --: | --: |"]
    for name, lines in covered.items():
        rows.append(f"| {name} | {len(lines):,} | {sum(count > 0 for count in lines) / len(lines):.1%} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=32.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=6.0, help="minutes in which a planted bug must be found")
    parser.add_argument("--only", choices=["coverage", "plants"], help="one half, printed and not written")
    arguments = parser.parse_args()
    parts, failed = [HEAD], False
    if arguments.only != "plants":
        folder = build("instrumented")
        code, said = fuzz(folder, "--minutes", str(arguments.minutes), "--seed", str(arguments.seed))
        failed |= code != 0
        parts += [f"## The run\n\n```\n{said.strip()}\n```\n", f"## What it reached\n\n{coverage(folder)}\n"]
    if arguments.only != "coverage":
        rows = ["| planted bug | in | found after | as |", "| --- | --- | --: | --- |"]
        for number, plant in enumerate(PLANTS):
            started = time.monotonic()
            folder = build(f"plant-{number}", plant)
            built = time.monotonic() - started
            _, said = fuzz(folder, "--minutes", str(arguments.patience), "--seed", "1", "--each", "20", "--first")
            found = re.search(r"found after ([\d,]+) dialogues", said)
            failed |= not found
            print(f"{plant.name}: built in {built:.0f} s\n{said[-600:]}", flush=True)
            breach = said.strip().splitlines()[0].replace("|", "\\|") if found else ""
            after = f"{found[1]} dialogues" if found else "**not found**"
            rows.append(f"| {plant.name} | `{plant.file}` | {after} | `{breach[:90]}` |")
        parts.append("## Planted bugs\n\n" + "\n".join(rows) + "\n")
    text = "\n".join(parts)
    if arguments.only:
        print(text)
    else:
        (ROOT / "specs" / "fuzz.md").write_text(text, encoding="utf-8")
    sys.exit(failed)


HEAD = """\
# Fuzzing of rendering and spans

Written by `make fuzz`. Random dialogues through every chat template, held against what transformers alone shows: the
text, the prompt of every trained turn, its target, what was said, reasoning in its own target and no other, each turn
once; whole dialogues (`--target template`) and control tokens as text beside it. `scripts/fuzz.py` says how, what a
seed gives is always the same. *Reached* is the share of lines that the run executed.
"""


if __name__ == "__main__":
    main()
