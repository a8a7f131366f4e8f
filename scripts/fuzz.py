"""Random dialogues through every chat template, held against what transformers alone shows (`oracle.py`).

A dialogue is made of strings that are hard on a template or on a proof by words: tags and literals of the template
itself, control tokens, words that repeat each other, white space, scripts that normalisers change, JSON, the words that
dlgc puts in place of strings. Each goes through three renderers of its template (the law of the prompt, whole
dialogues, control tokens as text). A breach of a law is written down with its record. What a seed gives is always the
same; a run ends after so many rounds or minutes and prints how many dialogues it held against the laws.

    python scripts/fuzz.py --minutes 30 --seed 1

What share of the core that reaches, and that it finds planted bugs, shows `fuzz_proof.py`.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import json
import random
import sys
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_tokenizers
import transformers
from fuzz_dialogues import Maker
from oracle import Oracle, Record, Survey, UnsureError, trained_runs

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT.parent / "shared" / "templates" / "llama.cpp", ROOT.parent / "shared" / "templates" / "trl",
           ROOT / "tests" / "fixtures" / "templates")  # fmt: skip
TOKENIZERS = ("qwen3", "qwen3", "llama3_1", "deepseek_v3", "gptoss", "gemma3", "llama2")
STORE = real_tokenizers.CACHE / "fuzz"
# A turn may be left untrained, and a dialogue be refused, for these reasons only.
CODES = {"prompt-differs", "target-unproved", "no-stop-token", "template-refused", "field-lost", "control-token"}
CODES |= {"no-assistant", "empty-dialogue", "nothing-to-train", "template-limit"}


class Subject:
    """A template with a tokenizer: three renderers, and the laws that each is held against."""

    def __init__(self, path: Path, tokenizer: str, seed: str) -> None:
        """Loads them; `dlgc.TemplateError` where dlgc refuses the template."""
        folder = real_tokenizers.folder(tokenizer)
        self.name = f"{path.parent.name}/{path.stem}"
        self.oracle = Oracle(_tokenizer(folder), path.read_text(encoding="utf-8"))
        today = dt.datetime.now().astimezone().date().isoformat()
        common = {"tokenizer": str(folder), "chat_template": str(path), "max_length": "none", "date": today}

        def renderer(**more: str) -> _dlgc.Renderer:
            return _dlgc.Renderer(dlgc.CompileOptions.of({**common, **more}).to_json())

        self.exact, self.whole = renderer(), renderer(target="template")
        self.as_text = renderer(control_tokens="text")
        special = [token.content for token in self.oracle.tokenizer.added_tokens_decoder.values() if token.special]
        self.maker = Maker(f"{seed} {self.name} {tokenizer}", self.oracle.source, special[:12])

    def hold(self, found: Survey) -> tuple[Record, list[str]]:
        """Makes one dialogue and holds it against the laws; what it breaks."""
        record = self.maker.record()
        found.wrong.clear()
        try:
            case = found.examine(self.oracle, self.exact, f"{self.name} fuzz", record)
        except UnsureError:
            found.counts["the oracle is unsure"] += 1
            return record, []
        # Tags in a content make it a matter of opinion what is reasoning.
        laws = set(found.wrong) - ({"reasoning"} if "think>" in json.dumps(record) else set())
        broken = found.breaches(*laws) if laws else []
        if unknown := {code for code in found.codes if code not in CODES}:
            broken.append(f"code: {sorted(unknown)}")
        raw = json.dumps(record, ensure_ascii=False).encode()
        if case is not None:
            broken += self.shown(json.loads(self.whole.render(raw)), case.found["text"])
        broken += self.text_only(json.loads(self.as_text.render(raw)), record)
        return record, broken

    def shown(self, shown: Record, text: str) -> Iterator[str]:
        """`--target template`: one row, the ids of the whole text, each run the end of its turn's target."""
        if not shown.get("rows"):
            return
        if len(shown["rows"]) > 1 or shown["rows"][0]["input_ids"] != self.oracle.ids(text):
            yield "whole: other ids than the whole rendering"
            return
        (row,) = shown["rows"]
        turns, runs = {turn["message"]: turn for turn in shown["turns"]}, trained_runs(row["labels"])
        if len(runs) < len(row["trained_messages"]):
            return  # two turns side by side cannot be told apart
        for message, (start, end) in zip(row["trained_messages"], runs, strict=True):
            said, turn = bare(self.oracle.decode(row["input_ids"][start:end])), turns[message]
            if not bare(turn["target"]).endswith(said) or not said.endswith(bare(turn["stop"])):
                yield f"whole: message {message}: {said!r:.200} is trained of {turn['target']!r:.200}"

    def text_only(self, found: Record, record: Record) -> Iterator[str]:
        """`--control-tokens text`: no control token stands in a row that the template did not print."""
        if found.get("text") is None:
            return
        scaffold = self.oracle.tokenizer
        for row in found["rows"]:
            if bare(row["text"]) != bare(self.oracle.decode(row["input_ids"])):
                yield f"text: ids of {row['text']!r:.200} do not say it"
        said = json.dumps(record, ensure_ascii=False)
        quiet = not any(token in said for token in scaffold.all_special_tokens + list(scaffold.get_added_vocab()))
        own = {turn["message"] for turn in found["turns"] if turn.get("own_row")}
        for row in found["rows"]:
            if quiet and not own & set(row["trained_messages"]) and row["input_ids"] != self.oracle.ids(row["text"]):
                yield "text: other ids where no content holds a control token"


def bare(text: str) -> str:
    """A text without what tokenizers change: composed accents, white space and SentencePiece's sign for it."""
    return "".join(unicodedata.normalize("NFC", text).replace("\u2581", "").split())


_LOADED: dict[Path, Any] = {}


def _tokenizer(folder: Path) -> Any:  # noqa: ANN401  # transformers ships no types
    if folder not in _LOADED:
        # Not AutoTokenizer, which builds another tokenizer from some of the files.
        _LOADED[folder] = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return _LOADED[folder]


def templates() -> list[Path]:
    """Every distinct template."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.jinja")):
            found.setdefault(path.read_text(encoding="utf-8"), path)
    return sorted(found.values())


def run(seed: int, minutes: float, each: int, tokenizers: Sequence[str], *, stop_at_first: bool = False) -> int:
    """Rounds over all templates, each with the next tokenizer, until the time is over; how many breaches."""
    STORE.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), Survey(exact_space=False)
    breaches: list[str] = []
    refused: collections.Counter[str] = collections.Counter()
    paths, round_number = templates(), 0
    chance = random.Random(seed)  # noqa: S311  # no secret
    chance.shuffle(paths)
    while True:
        for path in paths:
            tokenizer = chance.choice(tokenizers)
            try:
                subject = Subject(path, tokenizer, f"{seed} {round_number}")
            except dlgc.TemplateError:
                refused[f"{path.parent.name}/{path.stem}"] += 1
                continue
            for _ in range(each):
                record, broken = subject.hold(found)
                for breach in broken:
                    line = {"breach": breach, "tokenizer": tokenizer, "template": str(path), "record": record}
                    breaches.append(breach)
                    with (STORE / f"breaches-{seed}.jsonl").open("a", encoding="utf-8") as out:
                        out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    print(f"{tokenizer} {breach}"[:300], flush=True)
                    if stop_at_first:
                        print(f"found after {found.counts['dialogues']:,} dialogues")
                        return 1
                found.untrained.clear()
            if time.monotonic() - started > 60 * minutes:
                report(found, seed, time.monotonic() - started, round_number, refused, breaches)
                return len(breaches)
        round_number += 1


def report(  # noqa: PLR0913, PLR0917  # all that a run is judged by
    found: Survey,
    seed: int,
    seconds: float,
    rounds: int,
    refused: collections.Counter[str],
    breaches: list[str],
) -> None:
    """What was done, in figures."""
    counts = found.counts
    print(f"seed {seed}, {seconds / 60:.1f} minutes, {rounds} whole rounds, {counts['dialogues']:,} dialogues")
    for name, count in sorted(counts.items()):
        print(f"  {count:>9,} {name}")
    print("  refused:", {codes: len(names) for codes, names in found.refused.items()})
    print("  untrained:", dict(found.codes))
    print("  templates refused at load:", dict(refused))
    print(f"{len(breaches)} breaches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=100, help="dialogues of a template in each round")
    parser.add_argument("--tokenizers", nargs="+", default=TOKENIZERS, choices=real_tokenizers.NAMES)
    parser.add_argument("--first", action="store_true", help="end at the first breach")
    arguments = parser.parse_args()
    if not templates():
        sys.exit("skipped: no templates are here")
    sys.exit(
        bool(
            run(arguments.seed, arguments.minutes, arguments.each, arguments.tokenizers, stop_at_first=arguments.first)
        )
    )


if __name__ == "__main__":
    main()
