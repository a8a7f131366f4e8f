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
from dlgc.exceptions import OptionsError, ShardError

if TYPE_CHECKING:
    from datasets import Dataset

    from dlgc.train.options import Options

SPLIT = "train"
COLUMNS = ("input_ids", "labels", "seq_lengths")
"""What a trainer reads of a row; the last only where rows are packed."""
MARKER = ".dlgc-incomplete"
"""Lies in a dataset's folder while the compiler is at work there."""


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
    def size(self) -> dict[str, int]:
        """Rows, tokens and trained tokens of the split that is trained."""
        return cast(
            "dict[str, int]", self.manifest["splits"].get(SPLIT, dict.fromkeys(("rows", "tokens", "trained_tokens"), 0))
        )

    @property
    def tokenizer(self) -> Path:
        """The folder with tokenizer, chat template and stop ids."""
        return self.folder / "tokenizer"

    @cached_property
    def rows(self) -> Dataset:
        """The rows as a trainer takes them, mapped into memory."""
        dataset = dlgc.open(self.folder, SPLIT)
        kept = [name for name in COLUMNS if name in dataset.column_names]
        return dataset.select_columns(kept).with_format("numpy")  # lists are four times slower in TRL's collator

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        length = pl.col("input_ids").list.len().max()
        return int(dlgc.scan(self.folder, SPLIT).select(length).collect().item() or 0)

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
        OptionsError: The model is no local folder.
        ShardError: Too much was rejected.
        DlgcError: As for `dlgc.compile`.
        OSError: There is no such file.
    """
    if options.model is not None and not Path(options.model).expanduser().is_dir():
        raise OptionsError(
            f"`{options.data}` is no compiled dataset, and `{options.model}` no folder with a tokenizer to compile it\n"
            f"hint: `hf download {options.model} --local-dir FOLDER`, and name that folder"
        )
    folder = compiled_folder(options)
    asked = {"chat_template": options.chat_template, "max_length": options.max_seq_length}
    tokenizer = None if options.model is None else str(Path(options.model).expanduser())
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    report = dlgc.compile(options.data, folder, tokenizer=tokenizer, overwrite=True, **given)
    sys.stderr.write(
        f"compiled `{options.data}` into `{folder}`: {report.rows:,} rows, {report.rejected:,} records rejected\n"
    )
    if report.failure is not None:
        raise ShardError(f"`{options.data}` was compiled, but not well enough to train: {report.failure}")
