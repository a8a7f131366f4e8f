"""What fuzzing found to reach different code is read again: nothing panics, nothing is lost, and the counts add up."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import dlgc
from dlgc import _dlgc

KEPT = Path(__file__).resolve().parent / "fixtures" / "fuzz"
NAMES = ("plain.jsonl", "table.csv", "table.tsv", "set.parquet", "set.zip", "set.tar", "x.jsonl.gz", "x.jsonl.zst")


def contents(target: str) -> list[bytes]:
    found = []
    with tarfile.open(KEPT / f"{target}.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            found.append(file.read() if file else b"")
    return found


def test_the_corpus_of_files_is_read(tmp_path: Path) -> None:
    for number, content in enumerate(contents("source")):
        if content:
            (tmp_path / f"{number:05}-{NAMES[content[0] % len(NAMES)]}").write_bytes(content[1:])
    files = sorted(tmp_path.iterdir())
    report = dlgc.check(files, max_record_bytes=4096)
    assert len(files) > 100
    assert "internal-error" not in report.diagnostics
    records, dialogues = report.ledger["records"], report.ledger["dialogues"]
    assert records["read"] == records["imported"] + records["excluded"] + records["rejected"]
    assert dialogues["imported"] == dialogues["compiled"] + dialogues["rejected"]


@pytest.mark.parametrize("target", ["json", "schema"])
def test_the_corpus_of_records_has_a_verdict_each(target: str) -> None:
    renderer = _dlgc.Renderer("{}")
    found = contents(target)
    assert len(found) > 100
    for record in found:
        shown = json.loads(renderer.render(record))
        errors = {item["code"] for item in shown["diagnostics"] if item["severity"] == "error"}
        assert "internal-error" not in errors
        is_material = any(item["code"] == "not-a-dialogue" for item in shown["diagnostics"])
        assert (shown["text"] is None) <= (bool(errors) or is_material)
