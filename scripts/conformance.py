"""Compares dlgc with transformers over real templates and tokenizers, and writes the table `specs/conformance.md`.

Every template of the material beside the checkout, times every real tokenizer, times the small kinds of dialogue and
real dialogues chosen by hash (`conformance_cases.py`): text and ids must be those of transformers on the messages that
were handed over, every trained turn must follow exactly its prompt, and what dlgc refuses must be what transformers
cannot render whole (`conformance_compare.py`). One process a core; the result of each template and tokenizer is kept in
the cache until one of them, dlgc or these scripts change, so an interrupted run goes on where it was. Templates with
the same text are computed once. Exit status 1 if a mismatch is found or a bound is missed.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import itertools
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import conformance_cases as cases
import conformance_table as table
import real_tokenizers
import transformers
from conformance_compare import Cell, Outcome, Reference, Template

from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Iterable

SCRIPTS = ("conformance_cases.py", "conformance_compare.py", "conformance_fields.py", "oracle.py")
STORE = real_tokenizers.CACHE / "conformance"
LONGER_WITH = "qwen3"
QUICK_TOKENIZERS = ("qwen3", "llama2")
QUICK_DIALOGUES = 40
AT_ONCE = 4
"""So many templates are a task: fewer mean more loading, more mean that one core waits for the other at the end."""


@dataclass(frozen=True)
class Task:
    """A few templates with the tokenizers whose results are not in the cache, and the dialogues.

    Attributes:
        cells: Tokenizer, template and key in the cache of each, by tokenizer: dlgc keeps the one that it loaded last.
        dialogues: Their names.
    """

    cells: tuple[tuple[str, Path, str], ...]
    dialogues: frozenset[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tokenizers, 40 real dialogues; writes no table")
    parser.add_argument("--templates", default="*", help="a glob over `folder/name`; a part of them writes no table")
    parser.add_argument("--tokenizers", nargs="*", help="names; a part of them writes no table")
    parser.add_argument("--dialogues", type=int, help="that many real dialogues; writes no table")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    found = sorted((cases.SHARED / "templates").glob("*/*.jinja"))
    if not found:
        sys.exit("skipped: the real templates (../shared) are not here")
    templates = [path for path in found if fnmatch.fnmatch(table.name(path), arguments.templates)]
    wanted = arguments.tokenizers or (QUICK_TOKENIZERS if arguments.quick else real_tokenizers.NAMES)
    dialogues = arguments.dialogues or (QUICK_DIALOGUES if arguments.quick else None)
    started = time.monotonic()
    run = Run(templates, available(wanted), dialogues, arguments.processes)
    results = run.results()
    is_whole = templates == found and set(wanted) >= set(real_tokenizers.NAMES) and dialogues is None
    text = table.markdown(results, run.material())
    target = cases.ROOT / "specs" / "conformance.md" if is_whole else STORE / "part.md"
    target.write_text(text, encoding="utf-8")
    lines = list(table.mismatches(results))
    (STORE / "mismatches.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(table.summary(results))
    print(f"{target} written in {(time.monotonic() - started) / 60:.0f} minutes; see {STORE / 'mismatches.jsonl'}")
    if failed := table.failures(results, is_whole=is_whole):
        sys.exit("failed: " + "; ".join(failed))


def available(names: Iterable[str]) -> list[str]:
    """The tokenizers that can be had here; says why where one cannot."""
    here = []
    for name in names:
        try:
            real_tokenizers.folder(name)
        except real_tokenizers.UnavailableError as error:
            print(f"skipped: {name}: {error}")
        else:
            here.append(name)
    return here


class Run:
    """Templates times tokenizers times dialogues."""

    def __init__(self, templates: list[Path], tokenizers: list[str], dialogues: int | None, processes: int) -> None:
        """Chooses the dialogues."""
        self._templates = templates
        self._tokenizers = tokenizers
        self._processes = processes
        self._cases = load(dialogues)
        self._base = digest(
            transformers.__version__.encode(),
            Path(_dlgc.__file__).read_bytes(),
            *(Path(__file__).with_name(name).read_bytes() for name in SCRIPTS),
        )

    def results(self) -> table.Results:
        """Every cell, from the cache or computed now."""
        distinct = {path.read_bytes(): path for path in reversed(self._templates)}
        cells = {(path, name): self._key(path, name) for path in distinct.values() for name in self._tokenizers}
        tasks, dialogues = [], frozenset(case.name for case in self._cases)
        paths = sorted(distinct.values())
        for start in range(0, len(paths), AT_ONCE):
            pairs = itertools.product(self._tokenizers, paths[start : start + AT_ONCE])
            wanted = [(name, path, cells[path, name]) for name, path in pairs]
            missing = tuple(cell for cell in wanted if not _stored(cell[-1]).is_file())
            if missing:
                tasks.append(Task(missing, dialogues))
        computed = sum(len(task.cells) for task in tasks)
        print(f"{len(cells)} cells of {len(distinct)} distinct templates, {computed} to compute", flush=True)
        self._compute(tasks, computed)
        results = {}
        for path in self._templates:
            twin = distinct[path.read_bytes()]
            results[path] = {name: _read(cells[twin, name]) for name in self._tokenizers}
        return results

    def material(self) -> table.Material:
        """What the results were made of."""
        longer = [case for case in self._cases if case.kind == "longer"]
        return table.Material(self._cases, self._tokenizers, LONGER_WITH if longer else "")

    def _compute(self, tasks: list[Task], total: int) -> None:
        if not tasks:
            return
        started, done = time.monotonic(), 0
        context = multiprocessing.get_context("spawn")
        with context.Pool(self._processes) as pool:
            for line in pool.imap_unordered(compute, tasks):
                done += line[0]
                minutes = (time.monotonic() - started) / 60
                left = minutes / done * (total - done)
                print(f"{done}/{total} cells, {minutes:.1f} min, about {left:.0f} left: {line[1]}", flush=True)

    def _key(self, path: Path, name: str) -> str:
        folder = real_tokenizers.folder(name)
        files = [file.read_bytes() for file in sorted(folder.glob("*.json"))]
        dialogues = b"".join(case.record for case in self._cases if _takes(case, name))
        return digest(self._base.encode(), path.read_bytes(), dialogues, *files)


def _takes(case: cases.Case, tokenizer: str) -> bool:
    """Longer dialogues are shown with one tokenizer only."""
    return case.kind != "longer" or tokenizer == LONGER_WITH


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


@functools.cache
def load(dialogues: int | None) -> list[cases.Case]:
    """The kinds, and the chosen real dialogues; of `dialogues` as evenly from each set as their order allows."""
    real = cases.real()
    if dialogues is not None:
        real = [case for case in real if case.kind == "real"]
        real = real[:: max(1, len(real) // dialogues)][:dialogues]
    return cases.kinds() + real


@functools.cache
def _all_cases() -> dict[str, cases.Case]:
    return {case.name: case for case in load(None)}


@functools.cache
def _reference(name: str) -> Reference:
    return Reference(real_tokenizers.folder(name))


def compute(task: Task) -> tuple[int, str]:
    """All cells of a task, each written to the cache."""
    started = time.monotonic()
    templates = {path: Template(path) for _, path, _ in task.cells}
    everything = [case for name, case in _all_cases().items() if name in task.dialogues]
    for name, template, key in task.cells:
        cell = Cell(templates[template], _reference(name))
        outcomes = [asdict(cell.run(case)) for case in everything if _takes(case, name)]
        path = _stored(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        found = {"template": table.name(template), "tokenizer": name, "outcomes": outcomes}
        partial.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        partial.rename(path)
    seconds = time.monotonic() - started
    return len(task.cells), f"{', '.join(map(table.name, templates))} ({seconds:.0f} s)"


def _stored(key: str) -> Path:
    return STORE / "cells" / f"{key}.json"


def _read(key: str) -> list[Outcome]:
    found: list[dict[str, Any]] = json.loads(_stored(key).read_text(encoding="utf-8"))["outcomes"]
    for outcome in found:
        outcome["mismatches"] = [(kind, detail) for kind, detail in outcome["mismatches"]]
    return [Outcome(**outcome) for outcome in found]


if __name__ == "__main__":
    main()
