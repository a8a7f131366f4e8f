"""Compares the rows of a dataset by dlgc with those that TRL prepared: ids and labels, row for row."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

import dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

UNTRAINED = -100


@dataclasses.dataclass(frozen=True)
class Equality:
    """What a comparison found.

    Attributes:
        rows: How many rows dlgc has.
        rows_of_trl: How many TRL has.
        equal: Rows with the same ids and labels at the same place.
        examples: Examples of all rows.
        only_dlgc: Examples that TRL's rows do not hold.
        only_trl: Examples that dlgc's rows do not hold.
        untrained: How many of the latter have no trained token.
        first: Where the first two rows differ; `None` if none do.
    """

    rows: int
    rows_of_trl: int
    equal: int
    examples: int
    only_dlgc: int
    only_trl: int
    untrained: int
    first: str | None

    @property
    def is_equal(self) -> bool:
        """Whether every row is the same."""
        return self.rows == self.rows_of_trl == self.equal


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows as two flat columns."""

    input_ids: np.ndarray
    labels: np.ndarray
    ends: np.ndarray
    lengths: list[list[int]]
    """Of the examples in each row."""

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """From a table with `input_ids`, `labels` and, where rows are packed, `seq_lengths`."""

        def flat(name: str) -> np.ndarray:
            column = pc.list_flatten(table.column(name)).combine_chunks()
            return np.asarray(column).astype(np.int64)

        sizes = np.asarray(pc.list_value_length(table.column("input_ids"))).astype(np.int64)
        lengths = (
            table.column("seq_lengths").to_pylist()
            if "seq_lengths" in table.column_names
            else [[int(size)] for size in sizes]
        )
        return cls(flat("input_ids"), flat("labels"), np.cumsum(sizes), lengths)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.ends)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of a row."""
        start = int(self.ends[index - 1]) if index else 0
        end = int(self.ends[index])
        return self.input_ids[start:end], self.labels[start:end]

    def examples(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and labels of each example."""
        for index, lengths in enumerate(self.lengths):
            ids, labels = self.row(index)
            at = 0
            for length in lengths:
                yield ids[at : at + length], labels[at : at + length]
                at += length


def compare(ours: Rows, theirs: Rows) -> Equality:
    """Row for row, and, wherever they lie, example for example."""
    equal, first = 0, None
    for index in range(min(len(ours), len(theirs))):
        (ids, labels), (their_ids, their_labels) = ours.row(index), theirs.row(index)
        if np.array_equal(ids, their_ids) and np.array_equal(labels, their_labels):
            equal += 1
        elif first is None:
            first = f"row {index}, " + _difference(ids, labels, their_ids, their_labels)
    if first is None and len(ours) != len(theirs):
        first = f"row {min(len(ours), len(theirs))} is only on one side"
    mine, trained = _counted(ours)
    their, their_trained = _counted(theirs)
    only_trl = their - mine
    return Equality(
        rows=len(ours),
        rows_of_trl=len(theirs),
        equal=equal,
        examples=mine.total(),
        only_dlgc=(mine - their).total(),
        only_trl=only_trl.total(),
        untrained=sum(count for key, count in only_trl.items() if key not in (trained | their_trained)),
        first=first,
    )


def _counted(rows: Rows) -> tuple[Counter[bytes], set[bytes]]:
    """Examples by hash, and the hashes of those of which something is trained."""
    found: Counter[bytes] = Counter()
    trained = set()
    for ids, labels in rows.examples():
        key = hashlib.blake2b(ids.tobytes() + b"|" + labels.tobytes(), digest_size=16).digest()
        found[key] += 1
        if (labels != UNTRAINED).any():
            trained.add(key)
    return found, trained


def _difference(ids: np.ndarray, labels: np.ndarray, their_ids: np.ndarray, their_labels: np.ndarray) -> str:
    for name, mine, their in (("ids", ids, their_ids), ("labels", labels, their_labels)):
        size = min(len(mine), len(their))
        different = np.flatnonzero(mine[:size] != their[:size])
        if len(different):
            at = int(different[0])
            return f"token {at}: {name} {mine[at : at + 4].tolist()} here, {their[at : at + 4].tolist()} with TRL"
        if len(mine) != len(their):
            return f"{len(mine)} tokens here, {len(their)} with TRL"
    return "nothing"


def compared(ours: Path, theirs: Path) -> Equality:
    """A dataset by dlgc and one that TRL prepared and `datasets` saved."""
    import datasets

    prepared: Any = datasets.load_from_disk(str(theirs))
    columns = ["input_ids", "labels", "seq_lengths"]
    mine: Any = dlgc.open(ours)
    return compare(Rows.of(mine.data.table.select(columns)), Rows.of(prepared.data.table.select(columns)))
