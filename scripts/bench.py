"""The benchmark: dlgc beside TRL and beside tokenizers on real text, in one run, taking turns: `specs/benchmark.md`.

    python scripts/bench.py                                  everything; about two hours on two processors
    python scripts/bench.py --quick                          a few MB, once: to try it; all of it stays in the cache
    python scripts/bench.py --only tokenizers --corpora chinese --tokenizers qwen3

Parts: `pipeline` (JSON lines to packed rows), `families` (the same with other models' tokenizers and templates),
`tokenizers` (alone), `passes` (of dlgc). What was measured is kept
beside the page, in `specs/benchmark.json`, so a part can be measured again by itself; a part holds the figures of one
run only. Ends with status 1 where rows are not TRL's or ids not the reference's.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_page
import corpora
import real_tokenizers
from bench_encode import said
from bench_equal import compared
from bench_page import EQUAL, Figures, Run
from bench_peers import peers
from bench_run import measure, read_once

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpora import Corpus

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(__file__).resolve().parent
PAGE, PICTURE = ROOT / "specs" / "benchmark.md", ROOT / "docs" / "benchmark.svg"
RESULTS = PAGE.with_suffix(".json")
PARTS = ("pipeline", "families", "tokenizers", "passes")
TOKENIZERS = ("qwen3", "llama3_1", "gemma3", "llama2")
QUICK = 1_000_000
"""Bytes of a corpus in a trial."""
ALONE = ("english", "chinese")
"""Corpora for families, for tokenisers alone, and for passes."""
BESIDE_TRL = "gemma3"
"""Which family TRL prepares too: the one that differs most from Qwen3's, whose figures are in `pipeline`."""
OURSELVES = f"dlgc {dlgc.__version__}"
OURS = ("dlgc, 1 thread", "dlgc, 2 threads")
ALLOCATOR = {"MIMALLOC_PURGE_DELAY": "10000"}
"""As the extension sets it, for the examples of the core."""
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
TRAINED_AS_TRL = {**corpora.AS_TRL, "packing": "trl-bfd"}
DEFAULTS = {"chat_template": str(corpora.TEMPLATE), "control_tokens": "allow", "max_rejects": 1.0}

Runs = dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Theirs:
    """What `scripts/bench_trl.py` does: `prepare` or `loop`, in how many processes, for which of the families."""

    how: str
    processes: int = 1
    family: str = "qwen3"


class Bench:
    """What all parts share: the corpora, a folder, how often."""

    def __init__(self, folder: Path, found: dict[str, Corpus], tokenizers: list[str], runs: int) -> None:
        """Takes them as they are."""
        self.folder = folder
        self.corpora = found
        self.tokenizers = tokenizers
        self.runs = runs
        self.wrong: list[str] = []

    def turns(self, title: str, contenders: dict[str, Callable[[int], Run]], size: int) -> Runs:
        """Runs the contenders by turns, and says how far it is."""
        found: Runs = defaultdict(list)
        for number in range(self.runs):
            for name, run in contenders.items():
                os.sync()  # nobody pays for what somebody else has written
                found[name].append(dataclasses.asdict(run(number)))
                figures = Figures.of(found[name], size)
                print(f"{title}, {name}, {number + 1} of {self.runs}: {figures.rate:.1f} MB/s", flush=True)
        return dict(found)

    def dlgc(self, corpus: Corpus, options: dict[str, Any], threads: int, keep: Path | None, number: int) -> Run:
        """A compilation, and the same of the first dialogue alone; the first time the dataset is kept.

        Both follow on one that is not measured. What a virtual machine runs on takes back memory that is free for some
        seconds, as all is that TRL gives up; to get it again took 0.4 to 0.7 s of a compilation's 2 s.
        """
        with corpus.path.open("rb") as lines:
            first = self.folder / "first.jsonl"
            first.write_bytes(lines.readline())
        settings = {"tokenizer": str(real_tokenizers.folder("qwen3")), **options}
        flags = [flag for name, value in settings.items() for flag in ("--" + name.replace("_", "-"), str(value))]
        measured = []
        for raw in (corpus.path, first, corpus.path):
            out = self.folder / "shards"
            shutil.rmtree(out, ignore_errors=True)
            read_once(raw)
            os.sync()
            command = [sys.executable, "-m", "dlgc", "compile", str(raw), "-o", str(out), *flags]
            measured.append(measure([*command, "--threads", str(threads), "--json"], threads))
        if keep and number == 0:
            out.rename(keep)
        shutil.rmtree(out, ignore_errors=True)
        _, startup, whole = measured
        report = json.loads(whole.printed)
        return Run(
            seconds=whole.wall - startup.wall,
            startup=startup.wall,
            processor=whole.processor,
            peak=whole.peak,
            tokens=report["tokens"],
            trained=report["trained_tokens"],
            rows=report["rows"],
        )

    def trl(self, corpus: Corpus, work: Theirs, keep: Path | None, number: int) -> Run:
        """TRL's preparation, or the loop; the first time the rows are kept."""
        folder = self.folder / "trl"
        tokenizer, template = real_tokenizers.folder(work.family), corpora.of_family(work.family)["chat_template"]
        command = [sys.executable, str(SCRIPTS / "bench_trl.py"), work.how, str(corpus.path), "--work", str(folder)]
        command += ["--tokenizer", str(tokenizer), "--template", template]
        command += ["--max-length", str(corpora.MAX_LENGTH), "--processes", str(work.processes)]
        command += ["--keep", str(keep)] if keep and number == 0 else []
        environment = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        read_once(corpus.path)
        whole = measure(command, work.processes, several=work.processes > 1, environment=environment)
        shutil.rmtree(folder, ignore_errors=True)
        report = json.loads(whole.printed.strip().splitlines()[-1])
        return Run(
            seconds=report["seconds"],
            startup=report["startup"] - whole.began,
            processor=whole.processor,
            peak=whole.peak,
            tokens=report["tokens"],
            trained=report["trained"],
            rows=report.get("rows"),
        )

    def pipeline(self) -> dict[str, Any]:
        """Whole pipelines on equal output."""
        runs, equal = {}, {}
        for name, corpus in self.corpora.items():
            ours, theirs = self.folder / "ours", self.folder / "theirs"

            contenders: dict[str, Callable[[int], Run]] = {
                OURS[0]: partial(self.dlgc, corpus, TRAINED_AS_TRL, 1, ours),
                OURS[1]: partial(self.dlgc, corpus, TRAINED_AS_TRL, 2, None),
                "dlgc, 1 thread, defaults": partial(self.dlgc, corpus, DEFAULTS, 1, None),
                bench_page.TRL: partial(self.trl, corpus, Theirs("prepare"), theirs),
                "TRL, 2 processes": partial(self.trl, corpus, Theirs("prepare", processes=2), None),
                "apply_chat_template": partial(self.trl, corpus, Theirs("loop"), None),
            }
            runs[name] = self.turns(name, contenders, corpus.bytes)
            equal[name] = self.compared(name, ours, theirs)
        return {"runs": runs, "equal": equal, "versions": versions()}

    def families(self) -> dict[str, Any]:
        """Whole pipelines with the tokenizers and templates of several families, on the same dialogues."""
        runs, equal, about = {}, {}, {}
        for corpus in (found.of_every_family() for name, found in self.corpora.items() if name in ALONE):
            ours, theirs = self.folder / "ours", self.folder / "theirs"
            contenders: dict[str, Callable[[int], Run]] = {}
            for family in corpora.FAMILIES:
                options = {**corpora.of_family(family), "packing": "trl-bfd"}
                settings = {**options, "tokenizer": str(real_tokenizers.folder(family))}
                keep = ours if family == BESIDE_TRL else None
                contenders[family] = partial(self.dlgc, corpus, settings, 1, keep)
            prepare = partial(self.trl, corpus, Theirs("prepare", family=BESIDE_TRL), theirs)
            contenders[bench_page.of_family(BESIDE_TRL)] = prepare
            runs[corpus.name] = self.turns(f"{corpus.name}, families", contenders, corpus.bytes)
            equal[corpus.name] = self.compared(f"{corpus.name}, {BESIDE_TRL}", ours, theirs)
            about[corpus.name] = dataclasses.asdict(corpus)
        return {
            "runs": runs,
            "equal": equal,
            "corpora": about,
            "templates": corpora.FAMILIES,
            "beside_trl": BESIDE_TRL,
            "versions": versions(),
        }

    def compared(self, title: str, ours: Path, theirs: Path) -> dict[str, Any]:
        """Compares rows with TRL's, says what came of it, and removes both."""
        found = compared(ours, theirs)
        equal = dataclasses.asdict(found)
        print(f"{title}: {bench_page.equality(equal)}", flush=True)
        if not found.is_equal:
            self.wrong.append(f"{title}: rows are not TRL's")
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
        return equal

    def tokenisers(self) -> dict[str, Any]:
        """Tokenisers alone."""
        example = str(built("tokenize"))
        runs: dict[str, dict[str, Runs]] = {}
        ids: dict[str, dict[str, dict[str, str]]] = {}
        sizes = {}
        missing = {peer.name: peer.refusal for peer in peers() if peer.refusal}
        there = [peer for peer in peers() if not peer.refusal]
        for corpus in (found for name, found in self.corpora.items() if name in ALONE):
            sizes[corpus.name] = sum(len(text.encode()) for text in said(corpus.path))
            runs[corpus.name], ids[corpus.name] = {}, {}
            for tokenizer in self.tokenizers:
                folder = real_tokenizers.folder(tokenizer)
                ours = [example, str(folder), str(corpus.path)]
                contenders: dict[str, Callable[[int], Run]] = {
                    "dlgc, 1 thread": encoding([*ours, "--threads", "1"], 1),
                    "dlgc, 2 threads": encoding([*ours, "--threads", "2"], 2),
                }
                for peer in there:
                    command = [str(peer.python), str(SCRIPTS / "bench_encode.py"), peer.library]
                    contenders[peer.name] = encoding([*command, str(folder / "tokenizer.json"), str(corpus.path)], 1)
                title = f"{corpus.name}, {tokenizer}"
                found = runs[corpus.name][tokenizer] = self.turns(title, contenders, sizes[corpus.name])
                figures = {name: Figures.of(ran, sizes[corpus.name]) for name, ran in found.items()}
                verdicts = dict.fromkeys(OURS, checked(ours))
                if reference := figures.get(bench_page.REFERENCE):
                    against = {name: bench_page.ids_against(of, reference) for name, of in figures.items()}
                    verdicts = {**against, **{name: said for name, said in verdicts.items() if against[name] == EQUAL}}
                self.wrong += [f"{title}: ids of dlgc: {verdicts[name]}" for name in OURS if verdicts[name] != EQUAL]
                ids[corpus.name][tokenizer] = verdicts
        versions = [OURSELVES, *(peer.name for peer in there)]
        return {"runs": runs, "ids": ids, "bytes": sizes, "missing": missing, "versions": versions}

    def passes(self) -> dict[str, Any]:
        """Passes of dlgc."""
        example = built("passes")
        runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
        shown = {
            "As TRL": TRAINED_AS_TRL,
            "Defaults, without a budget": {**DEFAULTS, "max_length": "none"},
        }
        for title, options in shown.items():
            runs[title] = {}
            for corpus in (found for name, found in self.corpora.items() if name in ALONE):
                out = self.folder / "passes"
                settings = {"inputs": [str(corpus.path)], "output": str(out), "overwrite": True, **options}
                settings["tokenizer"] = str(real_tokenizers.folder("qwen3"))
                reports = []
                for number in range(self.runs):
                    os.sync()
                    done = measure([str(example), json.dumps(settings)], 1, environment=ALLOCATOR)
                    reports.append(json.loads(done.printed))
                    print(f"{title}, {corpus.name}, passes, {number + 1} of {self.runs}", flush=True)
                    shutil.rmtree(out, ignore_errors=True)
                    shutil.rmtree(out.with_suffix(".whole"), ignore_errors=True)
                runs[title][corpus.name] = reports
        return {"runs": runs, "versions": [OURSELVES]}


def versions() -> list[str]:
    """Of dlgc, with how it was built, and of what TRL's side is made of."""
    packages = ("trl", "transformers", "tokenizers", "datasets", "pyarrow", "torch")
    built = "as `make wheel` builds it" if _dlgc.PROFILED else "as `pip install .` builds it"
    return [f"{OURSELVES} ({built})", *(f"{name} {importlib.metadata.version(name)}" for name in packages)]


def encoding(command: list[str], threads: int) -> Callable[[int], Run]:
    """A tokeniser alone, which times itself."""

    def run(_: int) -> Run:
        whole = measure(command, threads, environment=ALLOCATOR | (ONE_THREAD if threads == 1 else {}))
        report = json.loads(whole.printed.strip().splitlines()[-1])
        return Run(
            seconds=report["seconds"],
            startup=report["load_seconds"],
            processor=whole.processor,
            peak=whole.peak,
            tokens=report["tokens"],
            digest=report.get("digest"),
        )

    return run


def checked(command: list[str]) -> str:
    """Whether dlgc's tokeniser gives every text the reference's ids and offsets, by comparing them one by one."""
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout.strip().splitlines()[-1])
    different, texts = report["different"], report["texts"]
    return EQUAL if different == 0 else f"**differ** in {different:,} of {texts:,} texts"


def built(example: str) -> Path:
    """An example of the core, built with optimisation."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "dlgc", "--example", example], check=True)  # noqa: S607  # cargo is where PATH says
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "examples" / example


def machine() -> dict[str, str]:
    """What it runs on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processors": f"{os.cpu_count()} processors ({model})",
        "memory": f"{memory:.0f} GiB",
        "system": f"Linux {platform.release()}",
        "python": f"Python {platform.python_version()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few MB, once; nothing is written but in the cache")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the other parts stay as they are")
    parser.add_argument("--corpora", nargs="+", choices=corpora.NAMES, default=corpora.NAMES)
    parser.add_argument("--tokenizers", nargs="+", choices=TOKENIZERS, default=TOKENIZERS)
    parser.add_argument("--runs", type=int, default=5, help="of each contender (default: 5)")
    parser.add_argument("--megabytes", type=float, help="of each corpus (default: all of it)")
    arguments = parser.parse_args()
    if not corpora.TEMPLATE.is_file():
        sys.exit("skipped: the real templates (../shared) are not here")
    folder = corpora.CACHE / "quick"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json" if arguments.quick else RESULTS
    results: dict[str, Any] = {"parts": {}, "corpora": {}}
    if kept.is_file():
        results = json.loads(kept.read_text(encoding="utf-8"))
    runs = 1 if arguments.quick else arguments.runs
    size = QUICK if arguments.quick else (arguments.megabytes or float("inf")) * 1e6
    found = {}
    for name in arguments.corpora:
        try:
            found[name] = corpora.corpus(name).first(size)
        except corpora.MissingError as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
    about = {name: dataclasses.asdict(corpus) for name, corpus in found.items()}
    results |= {"quick": arguments.quick, "corpora": results["corpora"] | about}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), found, list(arguments.tokenizers), runs)
        measures = {
            "pipeline": bench.pipeline,
            "families": bench.families,
            "tokenizers": bench.tokenisers,
            "passes": bench.passes,
        }
        for part in arguments.only:
            began = time.monotonic()
            date = dt.datetime.now(dt.UTC).date().isoformat()
            results["parts"][part] = {"date": date, "machine": machine(), "times": runs, **measures[part]()}
            kept.write_text(json.dumps(results) + "\n", encoding="utf-8")
            print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    command = "make bench" if not sys.argv[1:] else f"scripts/bench.py {' '.join(sys.argv[1:])}"
    page = bench_page.page(results, command)
    target, picture = (folder / "benchmark.md", folder / "benchmark.svg") if arguments.quick else (PAGE, PICTURE)
    target.write_text(page, encoding="utf-8")
    picture.write_text(bench_page.picture(results), encoding="utf-8")
    print(page)
    if bench.wrong:
        sys.exit("failed: " + "; ".join(bench.wrong))


if __name__ == "__main__":
    main()
