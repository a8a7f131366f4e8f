"""Containers: the same dialogues come out of every wrapping, and what is broken says so and costs only itself."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlgc
from dlgc.cli import main

FIXTURES = Path(__file__).resolve().parent / "fixtures"
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def dialogue(number: int) -> dict[str, Any]:
    return {
        "id": f"d{number}",
        "messages": [
            {"role": "user", "content": f'问题 {number}, "quoted"\nsecond line'},
            {"role": "assistant", "content": f"答案 {number}."},
        ],
    }


RECORDS = [dialogue(number) for number in range(7)]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]  # a mode is a string
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def table(delimiter: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(["id", "messages", "note"])
    writer.writerows([record["id"], json.dumps(record["messages"], ensure_ascii=False), ""] for record in RECORDS)
    return buffer.getvalue().encode()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), buffer, row_group_size=3)
    return buffer.getvalue()


WRAPPED: dict[str, bytes] = {
    "lines.jsonl": LINES,
    "marked.jsonl": b"\xef\xbb\xbf" + LINES,
    "lines.jsonl.gz": gzip.compress(LINES),
    "joined.jsonl.gz": gzip.compress(LINES[:100]) + gzip.compress(LINES[100:]),
    "lines.jsonl.zst": zstd(LINES),
    "frames.jsonl.zst": zstd(LINES[:100]) + zstd(LINES[100:]),
    "list.json": json.dumps(RECORDS, ensure_ascii=False).encode(),
    "laid-out.json": json.dumps(RECORDS, indent=2).encode(),
    "keyed.json": json.dumps({f"k{number}": record for number, record in enumerate(RECORDS)}).encode(),
    "keyed.json.gz": gzip.compress(
        json.dumps({f"k{n}": record for n, record in enumerate(RECORDS)}, indent=1).encode()
    ),
    "one.zip": zipped(("a/lines.jsonl", LINES)),
    "stored.zip": zipped(("lines.jsonl.gz", gzip.compress(LINES)), method=zipfile.ZIP_STORED),
    "members.tar": tarred(
        *((f"./x/{n}.json", json.dumps(record, indent=1).encode()) for n, record in enumerate(RECORDS))
    ),
    "members.tar.gz": gzip.compress(tarred(("lines.jsonl", LINES), ("._lines.jsonl", b"junk"))),
    "members.tgz": tarred(("lines.jsonl.zst", zstd(LINES)), mode="w:gz"),
    "rows.csv": table(","),
    "semicolons.csv": b"\xef\xbb\xbf" + table(";"),
    "rows.tsv.gz": gzip.compress(table("\t")),
    "rows.parquet": parquet(),
}


def ids(report: dlgc.Report, shards: Path) -> list[str]:
    assert report.failure is None, report.diagnostics
    return list(dlgc.scan(shards).select(pl.col("dialogue_id").explode()).collect()["dialogue_id"])


@pytest.mark.parametrize("name", WRAPPED)
def test_the_same_dialogues_come_out_of_every_container(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WRAPPED[name])
    report = dlgc.compile(tmp_path / name, tmp_path / "shards")

    expected = dlgc.compile(write(tmp_path / "plain.jsonl", LINES), tmp_path / "plain")
    assert ids(report, tmp_path / "shards") == [record["id"] for record in RECORDS]
    assert report.ledger == expected.ledger
    columns = ["input_ids", "labels"]
    rows, plain = (dlgc.scan(tmp_path / which).select(columns).collect() for which in ("shards", "plain"))
    assert rows.equals(plain)
    verdict = dlgc.verify(tmp_path / "shards", source=tmp_path / name)
    assert verdict.sound, verdict
    assert verdict.confirmation is not None
    assert verdict.confirmation.rows == len(RECORDS)


@pytest.mark.parametrize("name", [name for name in WRAPPED if not any(word in name for word in ("tar", "zip", "tgz"))])
def test_a_record_is_shown_by_its_number_in_any_container(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, WRAPPED[name])
    found = json.loads(dlgc._dlgc.Renderer("{}").render_file(str(path), 3))  # noqa: SLF001  # ours
    record = json.loads(found["record"])
    messages = record["messages"]
    assert (json.loads(messages) if isinstance(messages, str) else messages) == RECORDS[2]["messages"]


def test_members_have_names_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "set.zip", zipped(("a.jsonl", LINES), ("b/c.jsonl", b"{}\n" + LINES), ("readme.txt", b"hi"))
    )
    report = dlgc.check(path)
    (example,) = report.diagnostics["unknown-format"]["examples"]
    assert example["location"] == f"{path}!b/c.jsonl:1"
    assert report.skipped == [(f"{path}!readme.txt", "unknown ending")]
    assert main(["show", f"{path}!b/c.jsonl:4"]) == 0
    assert "[[答|案| |2" in capsys.readouterr().out
    assert main(["show", f"{path}:4"]) == 2
    assert f"`{path}!a.jsonl`" in capsys.readouterr().err
    assert main(["show", f"{path}!b/c.jsonl:99"]) == 2
    assert "has no record 99; it has 8" in capsys.readouterr().err


def test_a_folder_of_everything_is_read_in_name_order(tmp_path: Path) -> None:
    for name, content in WRAPPED.items():
        write(tmp_path / "raw" / name, content)
    report = dlgc.check(tmp_path / "raw")
    assert report.failure is None, report.diagnostics
    assert report.ledger["records"] == {"read": 133, "imported": 133, "excluded": 0, "rejected": 0}
    assert len(WRAPPED) * len(RECORDS) == 133


def test_the_key_of_a_record_is_its_id_unless_it_has_one(tmp_path: Path) -> None:
    nameless = {f"MUL{n}.json": {"messages": record["messages"]} for n, record in enumerate(RECORDS)}
    nameless["broken"] = {"messages": 3}  # type: ignore[dict-item]  # on purpose
    path = write(tmp_path / "keyed.json", json.dumps(nameless).encode())
    report = dlgc.compile(path, tmp_path / "shards", max_rejects=1.0)
    assert ids(report, tmp_path / "shards") == list(nameless)[:-1]
    (example,) = report.diagnostics["wrong-type"]["examples"]
    assert example["location"] == f'{path}[8] "broken"'
    (reject,) = map(json.loads, (tmp_path / "shards/rejects/index.jsonl").read_text().splitlines())
    assert (reject["element"], reject["key"]) == (8, "broken")


# Parquet: what Arrow's structs do to JSON, and what dlgc makes of it


def test_nulls_that_arrow_put_into_structs_are_absent_fields(tmp_path: Path) -> None:
    """Rows with different tools share one struct type, so every tool gets every other tool's parameters, as nulls."""
    records = [
        {
            "messages": [
                {"role": "user", "content": "fare?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
                },
                {"role": "tool", "name": name, "content": "128"},
                {"role": "assistant", "content": "128"},
            ],
            "tools": [{"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}],
        }
        for name, arguments, properties in (
            ("fare", {"city": "x"}, {"city": {"type": "string"}}),
            ("clock", {"zone": 8}, {"zone": {"type": "integer", "minimum": 0}}),
        )
    ]
    stored = pa.Table.from_pylist(records)
    assert stored.to_pylist()[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "x", "zone": None}
    pq.write_table(stored, tmp_path / "tools.parquet")
    write(tmp_path / "tools.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())

    rows = []
    for name in ("tools.jsonl", "tools.parquet"):
        out = tmp_path / f"{name}-out"
        report = dlgc.compile(tmp_path / name, out)
        assert report.failure is None, report.diagnostics
        rows.append(dlgc.scan(out).select("input_ids", "labels").collect())
    assert rows[0].equals(rows[1])


def test_parquet_columns_of_any_type_are_read_or_refused_in_words(tmp_path: Path) -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    record = {
        **RECORDS[0],
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("1.50"),
        "blob": b"\x00\xff",
        "score": float("nan"),
        "many": {"a": 1},
    }
    stored = pa.Table.from_pylist([record, RECORDS[1]])
    index = stored.schema.get_field_index("id")
    stored = stored.set_column(index, "id", stored["id"].dictionary_encode())
    for compression in ("none", "snappy", "gzip", "zstd", "lz4"):
        pq.write_table(stored, tmp_path / "odd.parquet", compression=compression)
        report = dlgc.compile(tmp_path / "odd.parquet", tmp_path / "out", overwrite=True)
        assert ids(report, tmp_path / "out") == ["d0", "d1"]


# Broken containers: a code, a message, and everything that could be read


def cut(content: bytes, share: float = 0.6) -> bytes:
    return content[: int(len(content) * share)]


def many(number: int) -> bytes:
    return "".join(json.dumps(dialogue(n), ensure_ascii=False) + "\n" for n in range(number)).encode()


def encrypted() -> bytes:
    content = bytearray(zipped(("a.jsonl", LINES)))
    for place in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[place] |= 1
    return bytes(content)


def wrong_checksum() -> bytes:
    content = bytearray(zipped(("a.jsonl", LINES), method=zipfile.ZIP_STORED))
    content[content.find("答案 3".encode()) + 7] = ord("9")
    return bytes(content)


BROKEN: dict[str, tuple[str, bytes, str, str]] = {
    "gzip": ("x.jsonl.gz", cut(gzip.compress(many(5000))), "truncated-gzip", "reading stopped after"),
    "gzip-damaged": (
        "x.jsonl.gz",
        gzip.compress(LINES) + b"junk",
        "truncated-gzip",
        "reading stopped after 7 record(s)",
    ),
    "zstd": ("x.jsonl.zst", cut(zstd(many(5000))), "broken-container", "incomplete frame"),
    "tar": ("x.tar", cut(tarred(("a.jsonl", many(50)))), "broken-container", "ends in the middle of a member"),
    "tar.gz": ("x.tgz", cut(gzip.compress(tarred(("a.jsonl", many(5000))))), "truncated-gzip", "reading stopped"),
    "zip": ("x.zip", cut(zipped(("a.jsonl", many(50)))), "broken-container", "reading stopped after 0 record(s)"),
    "checksum": ("x.zip", wrong_checksum(), "broken-container", "checksum"),
    "password": ("x.zip", encrypted(), "unsupported-container", "Password required"),
    "parquet": ("x.parquet", cut(parquet()), "broken-container", "reading stopped after 0 record(s)"),
    "array": ("x.json", cut(json.dumps(RECORDS).encode()), "broken-array", "the array is not closed"),
    "object": (
        "x.json",
        cut(json.dumps({str(n): r for n, r in enumerate(RECORDS)}).encode()),
        "broken-array",
        "not closed",
    ),
    "xz": ("x.jsonl.xz", lzma.compress(LINES), "unsupported-container", "the file is xz"),
    "zip-in-tar": ("x.tar", tarred(("a.zip", zipped(("a.jsonl", LINES)))), "unsupported-container", "a zip inside"),
    "utf-16": ("x.jsonl", LINES.decode().encode("utf-16"), "invalid-utf8", "the file is UTF-16"),
    "csv-quote": ("x.csv", table(",") + b'd8,"never closed' + b"x" * 3_000_000, "record-too-large", "larger than"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_container_is_a_fault_of_its_file_alone(case: str, tmp_path: Path) -> None:
    name, content, code, words = BROKEN[case]
    raw = tmp_path / "raw"
    write(raw / name, content)
    write(raw / "zz-sound.jsonl", LINES)
    report = dlgc.compile(
        [raw / name, raw / "zz-sound.jsonl"], tmp_path / "out", max_record_bytes=1 << 20, max_rejects=1.0
    )

    (example,) = report.diagnostics[code]["examples"]
    assert words in example["message"], example
    assert example["location"].startswith(str(raw / name))
    assert report.ledger["faults"] == 1
    assert report.failure == "1 file(s) could not be read to their end: nobody can say how much is missing"
    records = report.ledger["records"]
    assert records["read"] == records["imported"] + records["rejected"]
    assert records["imported"] >= len(RECORDS), "the sound file is compiled whole"
    assert report.manifest is not None
    assert [fault["code"] for fault in report.manifest["faults"]] == [code]
    assert dlgc.verify(tmp_path / "out").sound
    if case in ("gzip", "zstd", "tar.gz", "tar"):
        assert records["imported"] > 20, "what came before the break is compiled"


def test_a_file_on_which_a_reader_panics_is_a_fault_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Found by fuzzing: the Parquet reader divides by a length that the file says is 0."""
    sound = write(tmp_path / "sound.jsonl", LINES)
    report = dlgc.check([FIXTURES / "hostile.parquet", sound])
    (example,) = report.diagnostics["broken-container"]["examples"]
    assert "the reader failed" in example["message"]
    assert report.ledger["records"]["imported"] == len(RECORDS)
    assert "panicked" not in capfd.readouterr().err


def test_containers_that_hold_themselves_end(tmp_path: Path) -> None:
    content = LINES
    for _ in range(9):
        content = gzip.compress(content)
    report = dlgc.check(write(tmp_path / "deep.jsonl.gz", content))
    assert list(report.diagnostics) == ["unsupported-container"]
    assert "nested more than 6 deep" in report.diagnostics["unsupported-container"]["examples"][0]["message"]


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """300 MB of one line in 300 kB; the limit of a record holds."""
    bomb = gzip.compress(b"x" * (300 << 20), compresslevel=1)
    path = write(tmp_path / "bomb.jsonl.gz", bomb)
    report = dlgc.check(path, max_record_bytes=1 << 20)
    assert report.diagnostics["record-too-large"]["count"] == 1


def test_rows_with_a_cell_too_many_are_rejected_and_the_others_read(tmp_path: Path) -> None:
    lines = table(",").splitlines(keepends=True)
    path = write(tmp_path / "rows.csv", b"".join([*lines[:3], b"d9,a,b,c\n", *lines[3:]]))
    report = dlgc.check(path)
    (example,) = report.diagnostics["wrong-columns"]["examples"]
    assert example["message"] == "the row has 4 cells, the first row names 3 columns"
    assert report.ledger["records"]["imported"] == len(RECORDS)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real dialogues ({DATA}) are not here")
@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("topical-chat/*.json.gz", 1078),
        ("crosswoz/*.zip", 500),
        ("multiwoz21/*.zip", 999),
        ("multiwoz-zh/*.zip", 250),
        ("sgd/train_dialogues_*.json.gz", 985),
        ("kdconv/*.json.gz", 450),
        ("xstest/*prompts.csv*", 450),
    ],
)
def test_real_sets_are_cut_into_their_dialogues(name: str, records: int) -> None:
    report = dlgc.check(sorted(map(str, DATA.glob(name))))
    assert report.ledger["records"]["read"] == records, report.ledger
    assert report.ledger["faults"] == 0


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
