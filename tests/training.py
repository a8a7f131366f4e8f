"""What tests of training share: a tiny random model, and datasets for it.

The tokenizer is the built-in one under another name, so that no dataset here is a demo.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import dlgc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dlgc.train.run import Job

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: these models are too small to share out

MARKS = [
    pytest.mark.train,
    pytest.mark.skipif(find_spec("trl") is None, reason="training is not installed: pip install 'dlgc[train]'"),
    # TRL and peft import torch's JIT and use transformers' older names: nothing that a caller could do otherwise
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
]
"""Of tests that train."""

UNTRAINED = -100
QUICK: dict[str, object] = {"gradient_checkpointing": False, "disable_tqdm": True, "save_strategy": "no"}
Dialogue = dict[str, Any]


def write_model(folder: Path, work: Path, tokens: int = 4096) -> Path:
    """Writes a model folder: a tokenizer with its template, and random weights."""
    from dlgc.train.data import Shards
    from dlgc.train.model import write_builtin

    write_lines(work / "one.jsonl", [chat("Hello?", "Hello.")])
    dlgc.compile(work / "one.jsonl", work / "demo", max_length=tokens)
    shutil.copytree(work / "demo" / "tokenizer", folder)
    write_builtin(folder, Shards.open(work / "demo"), seed=0)
    shutil.copy(work / "demo" / "tokenizer" / "generation_config.json", folder)
    return folder


def chat(*said: str, **fields: object) -> Dialogue:
    """A dialogue in which user and assistant take turns."""
    roles = ("user", "assistant")
    return {**fields, "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]}


def write_lines(path: Path, records: Iterable[Dialogue]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def edit(path: Path, **values: object) -> None:
    """Changes members of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def pair(model: Path, prompt: list[Dialogue], chosen: list[Dialogue], rejected: list[Dialogue]) -> dict[str, Any]:
    """A row of a preference dataset: what is asked in messages, and two answers."""
    rows = [
        dlgc.render({"messages": prompt + answer}, tokenizer=model, max_length=4096).row
        for answer in (chosen, rejected)
    ]
    asked = dlgc.render({"messages": [*prompt, {"role": "assistant", "content": "x"}]}, tokenizer=model).row
    start = asked.labels.index(next(label for label in asked.labels if label != UNTRAINED))
    row: dict[str, Any] = {"prompt_ids": asked.input_ids[:start]}
    for side, answer in zip(("chosen", "rejected"), rows, strict=True):
        end = max(place for place, label in enumerate(answer.labels) if label != UNTRAINED) + 1
        labels = [UNTRAINED] * start + answer.labels[start:end]  # turns of the prompt are not asked again
        row |= {f"{side}_ids": answer.input_ids[start:end], f"{side}_labels": labels[start:]}
    return row


def write_pairs(folder: Path, model: Path, rows: list[dict[str, Any]], held_out: int = 0) -> Path:
    """Writes a preference dataset for a model, the last rows into its validation split."""
    work = folder.with_name(f"{folder.name}-of")
    work.mkdir()
    records = [chat("Hello?", "Hello.", split="validation" if held_out and n else "train") for n in range(2)]
    dlgc.compile(write_lines(work / "any.jsonl", records), folder, tokenizer=model)
    options = dlgc.manifest(folder)["options"]
    edit(folder / "manifest.json", options={**options, "rows": "kto" if "label" in rows[0] else "preference"})
    first, last = rows[: len(rows) - held_out], rows[len(rows) - held_out :]
    write_rows(folder, first)
    if held_out:
        write_rows(folder, last, "validation")
    return folder


def write_rows(shards: Path, rows: list[dict[str, Any]], split: str = "train") -> None:
    """Puts other rows into a dataset, as they are, and says in the manifest how many they are."""
    types = {"label": pa.bool_(), "negative": pa.string(), "divergence": pa.int32(), "line": pa.int32()}
    listed = {"file", "dialogue_id"}
    columns = {}
    for name in rows[0]:
        kind = types.get(name, pa.string() if name in listed else pa.list_(pa.int32()))
        columns[name] = pa.array([row[name] for row in rows], kind)
    table = pa.table(columns)
    with pa.ipc.new_stream(str(shards / split / "data-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    ids = [row[name] for row in rows for name in row if name.endswith("_ids")]
    labels = [row[name] for row in rows for name in row if name.endswith("labels")]
    trained = sum(label != UNTRAINED for each in labels for label in each)
    splits = dlgc.manifest(shards)["splits"]
    splits[split] = {"rows": len(rows), "tokens": sum(map(len, ids)), "trained_tokens": trained}
    edit(shards / "manifest.json", splits=splits)


def prepared(shards: Path, model: Path, output: Path, **options: object) -> Job:
    """Prepares a training and does not begin it."""
    from dlgc.train import Options
    from dlgc.train.run import prepare

    given = {"data_path": shards, "model": model, "output_dir": output}
    return prepare(Options.of({**given, **QUICK, **options}))


def train(method: str, shards: Path, model: Path, output: Path, **options: object) -> Any:  # noqa: ANN401  # imported late
    """Trains quickly."""
    import dlgc.train

    given = {"learning_rate": 1e-2, "gradient_accumulation_steps": 1}
    return getattr(dlgc.train, method)(shards, model=model, output_dir=output, **{**QUICK, **given, **options})
