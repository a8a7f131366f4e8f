"""What a compilation spends its time on, and what is left to the goal: `specs/profile.md`.

The extension is built once more, with symbols and frame pointers, by the profile that `scripts/release.py` left if
there is one. It compiles the corpora of the benchmark with its options on one processor under `perf record`; a sample
belongs to the innermost function of dlgc on its stack, whose module says the stage. What memory costs, pages that the
system clears and the allocator, is part of the stage that asked for it, and shown beside. The times are those of a
sampled run, some percent longer than the benchmark's; the last column takes the benchmark's seconds without the share
of the stage. `perf` is needed: a package such as `linux-perf`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import bench_page
import corpora
import real_tokenizers
from bench import ALONE, OURS, TRAINED_AS_TRL
from bench_page import Figures
from bench_run import read_once
from release import PROFILE, ROOT, rustc

TARGET = ROOT / "specs" / "profile.md"
RESULTS = ROOT / "specs" / "benchmark.json"
BUILD = ROOT / "target" / "profile"
FREQUENCY = 8000
"""Samples a second."""
MOST = 15
"""Functions that are shown."""
GOALS = {"english": 100, "chinese": 50}
"""How many times TRL's speed are aimed at."""
STAGES = (
    ("start-up", r"compiler::Compiler>?::load|tokenize::(fast::)?(build|tables|files)|tokenize::limited::.*Seed"),
    ("read", r"source::|^memchr"),
    ("parse", r"json::"),
    ("validate", r"validate::|import::|script::of|dialogue::"),
    ("render, prove", r"template::"),
    ("split into words", r"fast::(split|blocks|unicode|joins)::|Fast>?::(pieces|cut|bytes|encode)|added::Finder"),
    (
        "look words up",
        r"fast::(cache|longer)::.*(meet|find|set)|Fast>?::(look_up|gather|not_one|push|find_longer|long)",
    ),
    ("merge", r"fast::(merge|cache|longer)::|Fast>?::(symbols|learn|tokens)"),
    ("compare with the reference", r"engine::|limited::|reference::|tested::"),
    ("rows and masks", r"tokenize::"),
    ("pack, write", r"pack::|shard::|blake3"),
    ("everything else", r""),
)
"""The stages, and what the names of their functions hold; the first that does counts."""
MEMORY = re.compile(r"^_?mi_|clear_page|page_fault|folio|^__memset")


@dataclasses.dataclass(frozen=True)
class Found:
    """Milliseconds of a run by stage, and how many of those memory took; of the functions that took most."""

    stages: Counter[str]
    memory: Counter[str]
    functions: Counter[str]


def built() -> Path:
    """A folder with the package and an extension whose functions have names."""
    host, _ = rustc()
    flags = "-Cforce-frame-pointers=yes" + (f" -Cprofile-use={PROFILE}" if PROFILE.is_file() else "")
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(BUILD),
        "CARGO_PROFILE_RELEASE_STRIP": "none",
        "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only",
        "RUSTFLAGS": flags,
    }
    command = ["cargo", "build", "--release", "--quiet", "-p", "dlgc-python", "--target", host]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    folder = BUILD / "package"
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "python" / "dlgc", folder / "dlgc", ignore=ignored)
    shutil.copy(BUILD / host / "release" / "lib_dlgc.so", folder / "dlgc" / "_dlgc.abi3.so")
    return folder


def profiled(package: Path, corpus: corpora.Corpus, runs: int) -> Found:
    """The mean of some runs, after one that is not counted."""
    settings = {"tokenizer": str(real_tokenizers.folder("qwen3")), **TRAINED_AS_TRL}
    flags = [flag for name, value in settings.items() for flag in ("--" + name.replace("_", "-"), str(value))]
    stages: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(package), "DLGC_CACHE_DIR": str(Path(folder, "cache"))}
        for number in range(runs + 1):
            out, data = Path(folder, "shards"), Path(folder, "perf.data")
            shutil.rmtree(out, ignore_errors=True)
            read_once(corpus.path)
            command = [sys.executable, "-m", "dlgc", "compile", str(corpus.path), "-o", str(out), *flags, "--json"]
            record = ["perf", "record", "-q", "-F", str(FREQUENCY), "-e", "cpu-clock", "-g", "--call-graph", "fp"]
            record += ["-o", str(data), "taskset", "-c", "0", *command, "--threads", "1"]
            subprocess.run(record, check=True, cwd=package, env=environment, stdout=subprocess.DEVNULL)
            if number:
                for stack in stacks(data):
                    stage = stage_of(stack)
                    stages[stage] += 1
                    memory[stage] += bool(MEMORY.search(stack[0]))
                    functions[plain(stack[0])] += 1
    each = 1000 / FREQUENCY / runs
    return Found(*(Counter({name: count * each for name, count in of.items()}) for of in (stages, memory, functions)))


def stacks(data: Path) -> list[list[str]]:
    """The stack of each sample, innermost function first."""
    script = ["perf", "script", "-i", str(data), "-F", "ip,sym", "--no-inline"]
    said = subprocess.run(script, check=True, capture_output=True, text=True, errors="replace").stdout
    found = []
    for block in said.split("\n\n"):
        names = [line.split(None, 1)[1] for line in block.splitlines() if len(line.split(None, 1)) > 1]
        if names:
            found.append(names)
    return found


def stage_of(stack: list[str]) -> str:
    """The stage of the innermost function of dlgc; what is in none is start-up, the interpreter for the most part."""
    ours = [name for name in stack if "dlgc::" in name]
    if not ours or any(re.search(STAGES[0][1], name) for name in ours):
        return STAGES[0][0]
    return next(name for name, pattern in STAGES if re.search(pattern, ours[0]))


def plain(name: str) -> str:
    """The name of a function without its generics."""
    return re.sub(r"<impl (.*?)>", r"\1", name).replace("dlgc::", "")


def page(found: dict[str, Found], results: dict[str, Any]) -> list[str]:
    """The page; `results` are those of the benchmark."""
    part = results["parts"]["pipeline"]
    measured = ", ".join(part["versions"][:1])
    lines = ["# Profile", "", f"Written by `make profile` (scripts/stages.py): {measured}, one thread, as beside TRL."]
    lines += ["What the columns mean stands there; the seconds and TRL's are those of [the benchmark](benchmark.md)."]
    for name, of in found.items():
        runs = part["runs"][name]
        ours, theirs = (Figures.of(runs[of_whom], 1).seconds for of_whom in (OURS[0], bench_page.TRL))
        started = of.stages[STAGES[0][0]]
        work = sum(of.stages.values()) - started
        rows = []
        for stage, _ in STAGES[1:]:
            share = of.stages[stage] / work
            without = theirs / (ours * (1 - share))
            rows.append(
                [stage, f"{of.stages[stage]:.0f}", f"{of.memory[stage]:.0f}", f"{100 * share:.0f} %", f"{without:.0f}"]
            )
        goal = theirs / GOALS[name]
        title = name.capitalize()
        lines += ["", f"## {title}", ""]
        lines.append(
            f"{ours:.2f} s beside TRL's {theirs:.1f}: {theirs / ours:.0f} times. The goal of {GOALS[name]} times is "
            f"{goal:.2f} s, {100 * (1 - goal / ours):.0f} % less. Start-up, not in that, took {started:.0f} ms."
        )
        lines.append("")
        columns = ["stage", "ms", "of that memory", "share", "x TRL if it took no time"]
        lines += bench_page.table(
            columns, [*rows, ["whole", f"{work:.0f}", f"{sum(of.memory.values()):.0f}", "100 %", ""]]
        )
        functions = [[f"`{name}`", f"{taken:.0f}"] for name, taken in of.functions.most_common(MOST)]
        lines += ["", *bench_page.table(["function", "ms"], functions)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="compilations that the figures are the mean of")
    arguments = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("`perf` is needed to sample a process: install it, for instance the package linux-perf")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    package = built()
    found = {}
    for name in ALONE:
        found[name] = profiled(package, corpora.corpus(name), arguments.runs)
        print(f"{name}: {sum(found[name].stages.values()):.0f} ms", flush=True)
    TARGET.write_text("\n".join(page(found, results)) + "\n", encoding="utf-8")
    print(f"written: {TARGET}")


if __name__ == "__main__":
    main()
