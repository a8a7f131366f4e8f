"""Datasets: readable without dlgc, deterministic, whole or not at all, and checkable from themselves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from blake3 import blake3

import dlgc

datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture(scope="module")
def compiled(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "shards"
    dlgc.compile(examples, folder)
    return folder


@pytest.fixture(scope="module")
def many(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 2,400 dialogues in several files, one of them broken here and there."""
    folder = tmp_path_factory.mktemp("many")
    lines = [line for path in sorted(examples.glob("*.jsonl")) for line in path.read_text().splitlines()]
    for part in range(4):
        with (folder / f"part{part}.jsonl").open("w") as out:
            for copy in range(5):
                for index, line in enumerate(lines):
                    record = json.loads(line)
                    record["id"] = f"{part}-{copy}-{record['id']}"
                    record["split"] = "validation" if index % 10 == 0 else "train"
                    text = json.dumps(record, ensure_ascii=False)
                    out.write((text[: len(text) // 2] if part == 2 and index % 40 == 7 else text) + "\n")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_datasets_opens_a_split_without_dlgc(compiled: Path) -> None:
    loaded = datasets.load_from_disk(str(compiled / "train"))
    mapped = dlgc.open(compiled)
    assert loaded.num_rows == mapped.num_rows == 121
    assert loaded.features == mapped.features
    assert loaded[5] == mapped[5]
    assert loaded.column_names[:3] == ["input_ids", "labels", "assistant_masks"]


def test_opening_maps_the_shards_instead_of_reading_them(compiled: Path) -> None:
    before = pa.total_allocated_bytes()
    opened = dlgc.open(compiled)
    assert pa.total_allocated_bytes() - before < 100_000
    assert opened.cache_files[0]["filename"] == str(compiled / "train" / "data-00000.arrow")


def test_scanning_reads_only_the_columns_and_rows_that_are_asked_for(compiled: Path) -> None:
    frame = dlgc.scan(compiled)
    table = pa.ipc.open_stream((compiled / "train" / "data-00000.arrow").read_bytes()).read_all()
    whole = pl.from_arrow(table)
    assert isinstance(whole, pl.DataFrame)
    assert frame.collect().equals(whole)
    assert frame.select("labels").head(3).collect().equals(whole.select("labels").head(3))
    long = pl.col("input_ids").list.len() > 600
    assert frame.filter(long).select("line").collect().equals(whole.filter(long).select("line"))
    assert frame.filter(long).head(2).collect().equals(whole.filter(long).head(2))
    plan = frame.select("labels").head(3).explain()
    assert "1/11 COLUMNS" in plan.replace("PROJECT 1/11", "1/11"), plan


def test_rows_say_what_is_trained_and_where_they_came_from(compiled: Path, examples: Path) -> None:
    rows = dlgc.scan(compiled).collect().to_dicts()
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["assistant_masks"])
        for token, label, mask in zip(row["input_ids"], row["labels"], row["assistant_masks"], strict=True):
            assert label == (token if mask else -100)
    by_id = {row["dialogue_id"][0]: row for row in rows}
    row = by_id["tool_0007"]
    assert row["file"] == [str(examples / "guide.jsonl")]
    assert row["line"] == [3]
    assert row["trained_messages"] == [[2, 4]]


def test_dialogues_that_exclude_turns_train_the_others(compiled: Path, examples: Path) -> None:
    excluded = {}
    for path in examples.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            skip = [i for i, message in enumerate(record["conversation"]) if message.get("train") is False]
            if skip:
                excluded[record["id"]] = skip
    assert excluded
    rows = {row["dialogue_id"][0]: row for row in dlgc.scan(compiled).collect().to_dicts()}
    for name, skip in excluded.items():
        assert not set(skip) & set(rows[name]["trained_messages"][0])
        assert rows[name]["trained_messages"][0]


def test_one_thread_and_many_write_the_same_bytes(many: Path, tmp_path: Path) -> None:
    for threads in (1, 2, 5):
        dlgc.compile(many, tmp_path / str(threads), threads=threads)
    one = digests(tmp_path / "1")
    assert digests(tmp_path / "2") == one
    assert digests(tmp_path / "5") == one
    assert {"train/data-00000.arrow", "validation/data-00000.arrow", "manifest.json"} <= set(one)


def test_every_change_to_a_dataset_is_found(compiled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(compiled, copy)
    assert dlgc.verify(copy).problems == []
    for name in ("train/data-00000.arrow", "dialogues.arrow", "tokenizer/chat_template.jinja", "train/state.json"):
        path = copy / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        assert any(problem["place"].startswith(name) for problem in dlgc.verify(copy).problems), name
        path.unlink()
        assert dlgc.verify(copy).problems, name
        path.write_bytes(whole)
    assert dlgc.verify(copy).problems == []


def rewrite(folder: Path, change: object) -> None:
    """Changes rows and makes the digests fit again: only what the rows say of themselves can tell."""
    path = folder / "train" / "data-00000.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    rows = table.to_pylist()
    change(rows)  # type: ignore[operator]  # a function of rows
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["shards"][0]
    shard["bytes"], shard["blake3"] = path.stat().st_size, blake3(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def drop_stop(rows: list[dict[str, list[int]]]) -> None:
    last = max(i for i, label in enumerate(rows[0]["labels"]) if label != -100)
    rows[0]["labels"][last], rows[0]["assistant_masks"][last] = -100, 0


def train_on_user(rows: list[dict[str, list[int]]]) -> None:
    rows[0]["labels"][2], rows[0]["assistant_masks"][2] = rows[0]["input_ids"][2], 1


def change_id(rows: list[dict[str, list[int]]]) -> None:
    rows[0]["input_ids"][3] += 1


def change_label(rows: list[dict[str, list[int]]]) -> None:
    first = next(i for i, label in enumerate(rows[0]["labels"]) if label != -100)
    rows[0]["labels"][first] += 1


def cut_row(rows: list[dict[str, list[int]]]) -> None:
    for name in ("input_ids", "labels", "assistant_masks"):
        rows[0][name] = rows[0][name][:-20]


@pytest.mark.parametrize("change", [drop_stop, train_on_user, change_id, change_label, cut_row])
def test_rows_are_checked_beyond_their_digest(compiled: Path, tmp_path: Path, change: object) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(compiled, copy)
    rewrite(copy, change)
    places = [problem["place"] for problem in dlgc.verify(copy).problems]
    assert any(place.startswith("train/data-00000.arrow") for place in places), places


def test_a_folder_with_other_files_is_left_alone(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(dlgc.ShardError, match="not empty"):
        dlgc.compile(examples, tmp_path)
    with pytest.raises(dlgc.ShardError, match="not empty"):
        dlgc.compile(examples, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_dataset_is_replaced_only_when_asked(examples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dlgc.compile(examples / "guide.jsonl", out)
    before = digests(out)
    with pytest.raises(dlgc.ShardError, match="--overwrite"):
        dlgc.compile(examples, out)
    assert digests(out) == before
    dlgc.compile(examples, out, overwrite=True)
    assert dlgc.verify(out).rows == 121


def test_a_run_that_cannot_start_writes_nothing(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jinja").write_text("{% for message in messages %}{{ message.content }}{% endif %}")
    failing: list[dict[str, object]] = [
        {"chat_template": str(tmp_path / "plain.jinja")},
        {"chat_template": "no-such-template"},
        {"tokenizer": str(tmp_path)},
        {"max_length": 0},
        {"mask": "everything"},
        {"control_tokens": "maybe"},
    ]
    for options in failing:
        with pytest.raises(dlgc.DlgcError):
            dlgc.compile(examples, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists(), options
    with pytest.raises(FileNotFoundError):
        dlgc.compile(tmp_path / "missing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_compilation_never_reads_its_own_output(examples: Path, tmp_path: Path) -> None:
    shutil.copytree(examples, tmp_path / "raw")
    dlgc.compile(tmp_path / "raw", tmp_path / "raw" / "out")
    with pytest.raises(dlgc.OptionsError, match="lies in the output folder"):
        dlgc.compile(tmp_path / "raw", tmp_path / "raw" / "out", overwrite=True)


@pytest.mark.slow
def test_after_kill_9_the_same_command_comes_to_the_same_bytes(tmp_path: Path) -> None:
    import kill

    found = kill.run(tmp_path, kills=12, seed=1)
    print(found)
    assert found.killed == 12
    assert found.continued >= 1


def test_nothing_depends_on_the_clock_or_the_folder(many: Path, tmp_path: Path) -> None:
    here = Path.cwd()
    for name in ("a", "b"):
        shutil.copytree(many, tmp_path / name / "raw")
        os.chdir(tmp_path / name)
        try:
            dlgc.compile("raw", "out", max_rejects=1.0)
        finally:
            os.chdir(here)
    assert digests(tmp_path / "a" / "out") == digests(tmp_path / "b" / "out")
