"""The dataset that is trained: opened, or compiled first where raw dialogues were named."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

import dlgc
from dlgc.exceptions import ShardError
from dlgc.train import methods
from dlgc.train.methods import COLUMNS
from dlgc.train.model import Base

if TYPE_CHECKING:
    from datasets import Dataset

    from dlgc.train.options import Options

SPLIT = "train"
MARKER = ".dlgc-incomplete"
"""Lies in a dataset's folder while the compiler is at work there."""


def _length(column: str) -> pl.Expr:
    return pl.col(column).list.len().cast(pl.Int64)


LENGTH = {
    "sft": _length("input_ids"),
    "preference": _length("prompt_ids") + pl.max_horizontal(_length("chosen_ids"), _length("rejected_ids")),
    "kto": _length("prompt_ids") + _length("completion_ids"),
}
"""Tokens that the model sees at once, by the kind of the rows."""


@dataclass(frozen=True)
class Shards:
    """A compiled dataset.

    Attributes:
        folder: Where it is.
        manifest: What it says about itself.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Opens a dataset.

        Raises:
            ShardError: The folder is none.
        """
        return cls(folder, dlgc.manifest(folder))

    @property
    def kind(self) -> str:
        """What the rows are: `sft`, `preference` or `kto`."""
        return methods.kind(self.manifest)

    @property
    def size(self) -> dict[str, int]:
        """Rows, tokens and trained tokens of the split that is trained."""
        return self.size_of(SPLIT)

    def size_of(self, split: str) -> dict[str, int]:
        """Rows, tokens and trained tokens of a split; all zero where there is none of that name."""
        nothing = dict.fromkeys(("rows", "tokens", "trained_tokens"), 0)
        return cast("dict[str, int]", self.manifest["splits"].get(split, nothing))

    @property
    def tokenizer(self) -> Path:
        """The folder with tokenizer, chat template and stop ids."""
        return self.folder / "tokenizer"

    @cached_property
    def rows(self) -> Dataset:
        """The rows that are trained, as a trainer takes them, mapped into memory."""
        return self.split(SPLIT)

    def split(self, name: str) -> Dataset:
        """Returns the rows of a split, as a trainer takes them, mapped into memory."""
        dataset = dlgc.open(self.folder, name)
        dataset = dataset.select_columns([name for name in COLUMNS[self.kind] if name in dataset.column_names])
        # Lists are four times slower in TRL's collator for sequences, and in that for pairs nothing else is right.
        return dataset.with_format("numpy") if self.kind == "sft" else dataset

    def frame(self, split: str = SPLIT) -> pl.LazyFrame:
        """Returns a split with every column, for questions about it."""
        return dlgc.scan(self.folder, split)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row: of pairs and verdicts the prompt and the longer answer."""
        splits = [name for name in self.manifest["splits"] if self.size_of(name)["rows"]]
        found = [self.frame(name).select(LENGTH[self.kind].max()).collect().item() for name in splits]
        return max((int(length) for length in found), default=0)

    @property
    def packed(self) -> bool:
        """Whether a row holds several examples."""
        return "seq_lengths" in self.rows.column_names

    @property
    def generation(self) -> dict[str, Any]:
        """`generation_config.json`, as far as there is one."""
        path = self.tokenizer / "generation_config.json"
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset, or was to become one."""
    return (folder / "manifest.json").is_file() or (folder / MARKER).exists()


def compiled_folder(options: Options) -> Path:
    """Where raw dialogues are compiled to."""
    return options.output_dir / "shards"


def compile_raw(options: Options) -> None:
    """Compiles raw dialogues with the tokenizer of the model.

    Raises:
        ShardError: Too much was rejected.
        DlgcError: As for `dlgc.compile`.
        OSError: There is no such file, or no such model.
    """
    folder = compiled_folder(options)
    given: dict[str, Any] = {}
    if options.max_seq_length is not None:
        given["max_length"] = options.max_seq_length
    if options.how.rows != "sft":
        given["rows"] = options.how.rows
    if options.model is not None:
        revision = options.loading.get("model_revision", "main")
        given["tokenizer"] = str(Base.find(options.model, revision).tokenizer())
    if options.chat_template is not None and _is_template(options.chat_template, given.get("tokenizer")):
        given["chat_template"] = options.chat_template
    report = dlgc.compile(options.data, folder, overwrite=True, **given)
    sys.stderr.write(
        f"compiled `{options.data}` into `{folder}`: {report.rows:,} rows, {report.rejected:,} records rejected\n"
    )
    if report.failure is not None:
        raise ShardError(f"`{options.data}` was compiled, but not well enough to train: {report.failure}")


def _is_template(asked: str, tokenizer: str | None) -> bool:
    """Whether it is a template of its own, and not what other trainers call that of a family of models."""
    if Path(asked).suffix or Path(asked).exists() or Path(asked).name != asked:
        return True
    config = Path(tokenizer or "", "tokenizer_config.json")
    listed = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(listed, list) and asked in [entry["name"] for entry in listed]:
        return True
    sys.stderr.write(
        f"note: `chat_template {asked}` names no file and no template of the model: the model's own is used, as a "
        "server uses it\n"
    )
    return False
