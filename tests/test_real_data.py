"""Real sets go through with a closed ledger; counts were checked by hand against the originals."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

import dlgc

if TYPE_CHECKING:
    from pathlib import Path

# Path below shared/data: records, imported dialogues, and the code of all others.
SETS = {
    "tinker-conversations/conversations.jsonl": (128, 128, None),
    "tau-bench/gpt-4o-airline.trials01.json.gz": (100, 100, None),
    "llamafactory/identity.json": (91, 91, None),
    "llamafactory/glaive_toolcall_en_demo.json.gz": (300, 300, None),
    "llamafactory/glaive_toolcall_zh_demo.json.gz": (300, 298, "orphan-tool-result"),
    "llamafactory/dpo_en_demo.json.gz": (300, 0, "preference-record"),
    "llamafactory/kto_en_demo.json.gz": (300, 0, "preference-record"),
    "llamafactory/v1_sft_demo.jsonl.gz": (500, 500, None),
    "llamafactory/reason_tool_use_demo_50.jsonl.gz": (50, 50, None),
    "byu-chitchat/dataset.part.json.gz": (2500, 1413, "no-assistant"),
    "crosswoz/val.json.zip": (500, 500, None),
    "convlab3-unified/tm1_dummy_data.json": (10, 10, None),
    "xstest/xstest_v2_completions_gpt4.csv.gz": (450, 450, None),
    "gpteacher-toolformer/toolformer-similarity-0.6-dataset.json.gz": (2396, 2396, None),
}


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_goes_through_with_a_closed_ledger(shared: Path, tmp_path: Path, name: str) -> None:
    read, imported, code = SETS[name]
    report = dlgc.compile(shared / "data" / name, tmp_path / "out", max_length="none")
    ledger = report.ledger
    assert ledger["records"] == {"read": read, "imported": imported, "excluded": 0, "rejected": read - imported}
    assert ledger["dialogues"] == {"imported": imported, "excluded": 0, "compiled": imported, "rejected": 0}
    assert ledger["turns"]["total"] == ledger["turns"]["trained"] + sum(ledger["turns"]["untrained"].values())
    assert ledger["faults"] == 0
    if code:
        assert report.diagnostics[code]["count"] == read - imported
    assert dlgc.verify(tmp_path / "out").problems == []


def test_smile_goes_through(shared: Path, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("pyarrow")
    with zstandard.input_stream(str(shared / "data" / "smile" / "smile.jsonl.zst"), compression="zstd") as source:
        lines = source.read(1 << 22).split(b"\n")[:-1]  # its first 4 MB; the benchmark compiles the whole
    (tmp_path / "smile.jsonl").write_bytes(b"\n".join(lines))
    report = dlgc.compile(tmp_path / "smile.jsonl", tmp_path / "out")
    assert report.ledger["dialogues"] == {"imported": len(lines), "excluded": 0, "compiled": len(lines), "rejected": 0}
    assert report.ledger["turns"]["untrained"] == {}


def test_rejected_records_are_kept_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "llamafactory" / "glaive_toolcall_zh_demo.json.gz"
    dlgc.compile(path, tmp_path / "out")
    index = [json.loads(line) for line in (tmp_path / "out" / "rejects" / "index.jsonl").read_text().splitlines()]
    data = (tmp_path / "out" / "rejects" / "data.bin").read_bytes()
    original = gzip.decompress(path.read_bytes())
    elements = json.loads(original)
    assert [entry["element"] for entry in index] == [198, 294]
    for entry in index:
        record = data[entry["offset"] : entry["offset"] + entry["length"]]
        assert record in original
        assert json.loads(record) == elements[entry["element"] - 1]
        assert entry["diagnostics"][0]["code"] == "orphan-tool-result"
        assert entry["diagnostics"][0]["path"] == "$.conversations[2]"


def test_tool_calls_of_tau_bench_arrive_as_they_are(shared: Path) -> None:
    path = shared / "data" / "tau-bench" / "gpt-4o-airline.trials01.json.gz"
    record = next(
        item
        for item in json.loads(gzip.decompress(path.read_bytes()))
        if any(m.get("tool_calls") for m in item["traj"])
    )
    rendered = dlgc.render(record, max_length="none")
    calls = [call for message in record["traj"] for call in message.get("tool_calls") or []]
    assert calls
    for call in calls:
        assert call["function"]["arguments"] in rendered.text
    for message in record["traj"]:
        if message["role"] == "user" and message["content"] and "###STOP###" not in message["content"]:
            assert message["content"] in rendered.text
