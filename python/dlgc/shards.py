"""Reading a dataset: as a `datasets.Dataset` for training, as a Polars LazyFrame for analysis, as its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dlgc.exceptions import ShardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    from datasets import Dataset

    from dlgc.options import StrPath

FORMAT = "dlgc-shards"
FORMAT_VERSION = 2


def manifest(shards: StrPath) -> dict[str, Any]:
    """Returns the manifest of a dataset, as `specs/manifest.schema.json` has it.

    Raises:
        ShardError: The folder is no dataset, or one of another version.
    """
    folder = Path(shards)
    path = folder / "manifest.json"
    if not path.is_file():
        raise ShardError(
            f"`{folder}` is no dataset: it has no `manifest.json`\n"
            "hint: the manifest is written last; an interrupted compilation has none: run it again"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT or found.get("format_version") != FORMAT_VERSION:
        raise ShardError(
            f"`{path}`: expected format `{FORMAT}` version {FORMAT_VERSION}, "
            f"found `{found.get('format')}` version {found.get('format_version')}\n"
            "hint: compile again, or read it with the dlgc that wrote it"
        )
    return cast("dict[str, Any]", found)


def rows(manifest: dict[str, Any]) -> str:
    """Returns what the rows of a dataset are: `sft`, `preference` or `kto`; earlier builds only made the first."""
    return str(manifest["options"].get("rows", "sft"))


def paths(shards: StrPath, split: str = "train") -> list[Path]:
    """Returns the Arrow files of a split, in order.

    Raises:
        ShardError: The folder is no dataset, or has no such split.
    """
    found = manifest(shards)
    if split not in found["splits"]:
        there = ", ".join(f"`{name}`" for name in found["splits"])
        raise ShardError(f"`{shards}` has no split `{split}`\nhint: there are {there}")
    return [Path(shards) / shard["path"] for shard in found["shards"] if shard["split"] == split]


def open_(shards: StrPath, split: str = "train") -> Dataset:
    """Opens a split as a `datasets.Dataset`, mapped into memory: nothing is copied, any size opens at once.

    Raises:
        ShardError: The folder is no dataset, or has no such split.
        ImportError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("`dlgc.open` needs `datasets`: pip install 'dlgc[datasets]'") from error
    parts = [datasets.Dataset.from_file(str(path)) for path in paths(shards, split)]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def scan(shards: StrPath, split: str = "train") -> pl.LazyFrame:
    """Scans a split as a Polars LazyFrame; only the columns and rows that a query needs are read.

    Raises:
        ShardError: The folder is no dataset, or has no such split.
    """
    return _scan(paths(shards, split))


def scan_dialogues(shards: StrPath) -> pl.LazyFrame:
    """Scans `dialogues.arrow`: one row for each imported dialogue, compiled or rejected.

    Raises:
        ShardError: The folder is no dataset.
    """
    manifest(shards)
    return _scan([Path(shards) / "dialogues.arrow"])


def _scan(files: list[Path]) -> pl.LazyFrame:
    import polars as pl
    import pyarrow as pa
    from polars.io.plugins import register_io_source

    def batches(path: Path) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as source:
            yield from pa.ipc.open_stream(source)

    with pa.memory_map(str(files[0])) as source:
        empty = pa.ipc.open_stream(source).schema.empty_table()
    schema = cast("pl.DataFrame", pl.from_arrow(empty)).schema

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del batch_size  # the batches of the files are of a good size already
        left = n_rows
        for path in files:
            for batch in batches(path):
                if left is not None and left <= 0:
                    return
                part = batch if left is None else batch.slice(0, left)
                if left is not None:
                    left -= part.num_rows
                if with_columns is not None:
                    part = part.select(with_columns)
                frame = cast("pl.DataFrame", pl.from_arrow(part))
                yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(read, schema=schema, validate_schema=True, is_pure=True)
