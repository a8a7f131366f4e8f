"""The table of conformance: what became of every dialogue, by template and tokenizer, with its denominators."""

from __future__ import annotations

import collections
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import conformance_cases as cases
import real_tokenizers
import tokenizers as tokenizers_package
import transformers
from conformance_compare import DATE, DROPPED, EVERY_TURN_WITH, OF_FILE, TURNS

import dlgc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from conformance_compare import Outcome

Results = dict["Path", dict[str, list["Outcome"]]]

# Refusals that are listed apart: they say what the data holds, not what dlgc cannot do.
APART = ("control-token", "dialogue-too-long")
BOUND = 0.95
WHOLLY_REFUSED = 3


@dataclass(frozen=True)
class Material:
    """What the results were made of."""

    cases: list[cases.Case]
    tokenizers: list[str]
    longer_with: str


def name(path: Path) -> str:
    """`folder/name` of a template."""
    return f"{path.parent.name}/{path.stem}"


class Counts:
    """Outcomes, counted."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        """Counts them."""
        self.all = self.rendered = self.kept = self.lost = self.raised = self.nests = 0
        self.equal = self.mismatch = self.refused = 0
        self.compilable = self.compiled = 0
        self.apart: collections.Counter[str] = collections.Counter()
        self.agreed: collections.Counter[str] = collections.Counter()
        self.against: collections.Counter[str] = collections.Counter()
        self.turns: collections.Counter[str] = collections.Counter()
        self.classes: collections.Counter[str] = collections.Counter()
        self.notes: collections.Counter[str] = collections.Counter()
        for outcome in outcomes:
            self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        self.all += 1
        self.rendered += outcome.theirs != "raised"
        self.kept += outcome.theirs == "kept"
        self.lost += outcome.theirs == "lost"
        self.raised += outcome.theirs == "raised"
        self.nests += outcome.nests
        self.turns.update(outcome.turns)
        self.notes.update(set(outcome.notes))
        is_ours = outcome.ours == "rendered"
        self.mismatch += bool(outcome.mismatches)
        self.classes.update({kind for kind, _ in outcome.mismatches})
        self.equal += is_ours and not outcome.mismatches
        self.refused += not is_ours
        if outcome.ours in APART:
            self.apart[outcome.ours] += 1
            return
        self.compilable += outcome.theirs == "kept"
        self.compiled += outcome.theirs == "kept" and is_ours
        if not is_ours:
            (self.against if outcome.theirs == "kept" else self.agreed)[outcome.ours] += 1

    @property
    def share(self) -> float:
        """Of what transformers renders with every field, the share that compiles."""
        return self.compiled / self.compilable if self.compilable else 1.0

    @property
    def untrained(self) -> int:
        """Assistant turns without a target."""
        return sum(count for code, count in self.turns.items() if code not in ("shared", "own row"))


def mismatches(results: Results) -> Iterator[dict[str, str]]:
    """Each mismatch, with what is needed to see it again."""
    for path, cells in results.items():
        for tokenizer, outcomes in cells.items():
            for outcome in outcomes:
                for kind, detail in outcome.mismatches:
                    yield {
                        "template": name(path),
                        "tokenizer": tokenizer,
                        "dialogue": outcome.name,
                        "class": kind,
                        "detail": detail,
                    }


def failures(results: Results, *, is_whole: bool) -> list[str]:
    """Which of the bounds are missed."""
    found = []
    whole = Counts(_everything(results))
    if whole.mismatch:
        found.append(f"{whole.mismatch} renderings with a mismatch ({_codes(whole.classes)})")
    for path, cells in results.items():
        counts = Counts(_flat(cells))
        if counts.share < BOUND and not _is_refused(cells):
            found.append(f"{name(path)} compiles only {counts.share:.1%}")
    refused = _wholly_refused(results)
    if is_whole and len(refused) > WHOLLY_REFUSED:
        found.append(f"{len(refused)} templates are wholly refused")
    return found


def summary(results: Results) -> str:
    """A few lines for the terminal."""
    whole = Counts(_everything(results))
    theirs = (
        f"{whole.rendered:,} rendered, {whole.nests:,} prefix-preserving, {whole.raised:,} raised, {whole.lost:,} lost"
    )
    lines = [
        f"{whole.all:,} renderings: {whole.equal:,} equal, {whole.refused:,} refused, {whole.mismatch:,} mismatch",
        f"transformers: {theirs} a field",
    ]
    examples: dict[tuple[str, str], dict[str, str]] = {}
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for found in mismatches(results):
        key = (found["class"], found["template"])
        count[key] += 1
        examples.setdefault(key, found)
    for key, times in count.most_common():
        found = examples[key]
        lines.append(
            f"{times:6} {key[0]}: {key[1]} {found['tokenizer']} `{found['dialogue']}`: {found['detail'][:160]}"
        )
    return "\n".join(lines)


HEAD = """\
# Conformance

Written by `make conformance`. Real chat templates, times real tokenizers, times dialogues: what dlgc gives is compared
with what transformers gives on the messages that dlgc hands to the template. *Equal* means: the text; the ids of the
whole; for every trained turn, the ids before it are those of its prompt (`messages[:i]` with the generation prompt),
and its target is what `messages[:i+1]` shows after that. With {every}'s tokenizer every turn is compared so, with each
of the others {turns} turns of a dialogue, the first and the last two; the whole text and its ids always.

{part}dlgc {dlgc}, transformers {transformers}, tokenizers {tokenizers}. Templates that print the date get {date}.

## Dialogues

{kinds} small kinds (`tests/test_conformance.py`: those of `behaviour.json` and more, and one with documents), {real}
real dialogues with every tokenizer, and {longer} longer ones with `{longer_with}` only. Of each set those with the
smallest SHA-256 of the record's bytes, up to its quota, among the records of at most {largest:,} bytes that dlgc
imports; the longer ones are those with the smallest hash among the larger records of all sets. The rule was fixed
before anything was rendered. {with_tools} of the real dialogues have tools or calls, {with_reasoning} reasoning. Hash
of all dialogues: `{digest}`.
"""
PART = """\
**This table is of a part of the material**: fewer tokenizers or real dialogues than `make conformance` takes.

"""
SETS_NOTE = """
`reason-tool-use` is LLaMA-Factory's `reason_tool_use_demo_50`, whose typed parts are rewritten into OpenAI's form; in
one half the reasoning stands in `<think>` tags inside the content (`-tags`).
"""
TOTALS = """\
## Totals

Each is one dialogue with one template and one tokenizer. What transformers does is asked for the messages that dlgc
hands over; where dlgc refuses, for the record in whatever form suits the template best (content as parts, arguments as
text, repeated roles merged, null content empty). A field is *lost* if a word in its place does not appear in
transformers' text: content, calls, arguments, tools, documents. Reasoning may be dropped; so may a think block in the
content, by a template that names its tags, while to others it is content. Where history drops the content of a turn
that is shown while it is the newest, and dlgc trains it there, that is what a server does: a line of its own below.
*Prefix-preserving*: every prompt of the dialogue is how its whole text begins.

AutoTokenizer reads most `tokenizer.json` as they are. For two classes of this list, `LlamaTokenizer` (llama2) and
`GPT2Tokenizer` (gpt4o), it builds other pre-tokenizers than the file has. dlgc follows the file: where AutoTokenizer's
ids differ, they are compared with those that the `tokenizers` package gives for it, and counted in a line of their own.
"""
BY_TEMPLATE = """\
## By template

Over all tokenizers. *Rendered*, *nest* (prefix-preserving), *raised* and *lost* are transformers'; *agreed* are
refusals where transformers raises or loses a field, *apart* those for what the data holds (control tokens, length),
*against* those where it renders every field. *Compiled*: of what it renders with every field. Turns: in a row shared by
the dialogue, in a row of their own, untrained with a code.
"""
COLUMNS = (
    "rendered", "nest", "raised", "lost", "equal", "mismatch", "agreed", "apart", "against", "compiled", "shared",
    "own row", "untrained",
)  # fmt: skip


def markdown(results: Results, material: Material) -> str:
    """The whole table."""
    parts = [
        _head(material),
        _totals(results),
        _by_tokenizer(results, material),
        _by_template(results),
        _refused(results),
        _matrix(results, material),
    ]
    return "\n".join(parts)


def _rows(*rows: Iterable[object]) -> str:
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def _head(material: Material) -> str:
    of_kind = collections.Counter(case.kind for case in material.cases)
    real = [case for case in material.cases if case.kind == "real"]
    texts = [case.record.decode() for case in real]
    head = HEAD.format(
        part="" if len(material.tokenizers) == len(real_tokenizers.NAMES) and of_kind["longer"] else PART,
        every=EVERY_TURN_WITH,
        turns=TURNS,
        dlgc=dlgc.__version__,
        transformers=transformers.__version__,
        tokenizers=tokenizers_package.__version__,
        date=DATE.isoformat(),
        kinds=of_kind["kind"],
        real=of_kind["real"],
        longer=of_kind["longer"],
        longer_with=material.longer_with,
        largest=cases.LARGEST,
        with_tools=sum(bool(case.around["tools"]) or any("tool_calls" in m for m in case.messages) for case in real),
        with_reasoning=sum("reasoning_content" in text or "<think>" in text for text in texts),
        digest=hashlib.sha256(b"\n".join(case.record for case in material.cases)).hexdigest()[:16],
    )
    by_set = collections.Counter(case.name.rpartition(" ")[0] for case in real)
    return f"{head}\n{_rows(('set', 'dialogues'), ('---', '--:'), *by_set.items())}{SETS_NOTE}"


def _totals(results: Results) -> str:
    whole = Counts(_everything(results))

    def with_codes(counter: collections.Counter[str], total: int | None = None) -> str:
        total = sum(counter.values()) if total is None else total
        return f"{total:,} ({_codes(counter)})" if total else "0"

    rows = _rows(
        ("", "dialogues"),
        ("---", "--:"),
        ("all", f"{whole.all:,}"),
        ("transformers renders", f"{whole.rendered:,}"),
        ("… with every field", f"{whole.kept:,}"),
        ("… but loses a field", f"{whole.lost:,}"),
        ("… prefix-preserving", f"{whole.nests:,}"),
        ("transformers raises", f"{whole.raised:,}"),
        ("**equal**", f"{whole.equal:,}"),
        ("… as `tokenizer.json` has it; AutoTokenizer's ids differ", f"{whole.notes[OF_FILE]:,}"),
        ("… and history drops what a turn said: shown and trained in its own turn", f"{whole.notes[DROPPED]:,}"),
        ("**mismatch**", with_codes(whole.classes, whole.mismatch)),
        ("refused where transformers raises or loses a field", with_codes(whole.agreed)),
        ("refused for what the data holds", with_codes(whole.apart)),
        ("refused though transformers renders every field", with_codes(whole.against)),
    )
    share = (
        f"Of {whole.compilable:,} rendered with every field and not refused for what the data holds, {whole.share:.2%}"
    )
    refused = f"Templates wholly refused: {len(_wholly_refused(results))} of {len(results)}."
    return f"{TOTALS}\n{rows}\n{share} compile.\n\n{refused}\n"


def _by_tokenizer(results: Results, material: Material) -> str:
    rows: list[Iterable[object]] = [
        ("tokenizer", "package", "dialogues", "equal", "refused", "mismatch", "shared turns", "own rows", "untrained"),
        ("---", "---", *["--:"] * 7),
    ]
    for tokenizer in material.tokenizers:
        counts = Counts(outcome for cells in results.values() for outcome in cells[tokenizer])
        turns = (counts.turns["shared"], counts.turns["own row"], counts.untrained)
        figures = (counts.all, counts.equal, counts.refused, counts.mismatch, *turns)
        rows.append((tokenizer, real_tokenizers.package(tokenizer), *(f"{figure:,}" for figure in figures)))
    return f"## By tokenizer\n\n{_rows(*rows)}"


def _by_template(results: Results) -> str:
    rows: list[Iterable[object]] = [("template", *COLUMNS), ("---", *["--:"] * len(COLUMNS))]
    first: dict[bytes, str] = {}
    for path, cells in results.items():
        twin = first.setdefault(path.read_bytes(), name(path))
        if twin != name(path):
            rows.append((name(path), f"same text as {twin}", *[""] * (len(COLUMNS) - 1)))
            continue
        counts = Counts(_flat(cells))
        theirs = (counts.rendered, counts.nests, counts.raised, counts.lost)
        figures = (*theirs, counts.equal, counts.mismatch, counts.agreed.total(), counts.apart.total())
        turns = (counts.turns["shared"], counts.turns["own row"], counts.untrained)
        share = f"{counts.share:.1%}" if counts.compilable else "none"
        against = _codes(counts.against) or "0"
        shown = [[f"{figure:,}" for figure in some] for some in (figures, turns)]
        rows.append((name(path), *shown[0], against, share, *shown[1]))
    return f"{BY_TEMPLATE}\n{_rows(*rows)}"


def _refused(results: Results) -> str:
    lines = []
    for path, cells in results.items():
        reasons: dict[str, list[str]] = {}
        for tokenizer, outcomes in cells.items():
            if all(outcome.ours == "template" for outcome in outcomes):
                reasons.setdefault(outcomes[0].reason, []).append(tokenizer)
        kept = Counts(_flat(cells)).kept
        for reason, tokenizers in reasons.items():
            where = f"with {', '.join(tokenizers)}"
            if _is_refused(cells):
                where = f"with every tokenizer; transformers renders {kept:,} dialogues with every field"
            lines.append(f"- {name(path)}, {where}: {reason}\n")
    return f"## Templates refused as a whole\n\n{''.join(lines) or 'None.'}"


def _matrix(results: Results, material: Material) -> str:
    rows: list[Iterable[object]] = [("template", *material.tokenizers), ("---", *["--:"] * len(material.tokenizers))]
    seen: set[bytes] = set()
    for path, cells in results.items():
        if path.read_bytes() not in seen:
            seen.add(path.read_bytes())
            found = [Counts(cells[tokenizer]) for tokenizer in material.tokenizers]
            rows.append((name(path), *(f"{counts.equal}/{counts.refused}/{counts.mismatch}" for counts in found)))
    return f"## Templates by tokenizers\n\nEqual / refused / mismatch.\n\n{_rows(*rows)}"


def _flat(cells: dict[str, list[Outcome]]) -> Iterator[Outcome]:
    for outcomes in cells.values():
        yield from outcomes


def _everything(results: Results) -> Iterator[Outcome]:
    for cells in results.values():
        yield from _flat(cells)


def _is_refused(cells: dict[str, list[Outcome]]) -> bool:
    return all(outcome.ours != "rendered" for outcome in _flat(cells))


def _wholly_refused(results: Results) -> list[str]:
    return [name(path) for path, cells in results.items() if _is_refused(cells)]


def _codes(counter: collections.Counter[str]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in counter.most_common())
