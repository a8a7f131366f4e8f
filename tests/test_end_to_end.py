"""The whole road on the guide's own examples: compile, look, verify, open."""

from __future__ import annotations

from pathlib import Path

import dlgc

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "examples" / "dialogues" / "guide.jsonl"


def test_the_guides_examples_become_a_dataset_that_verifies(tmp_path: Path) -> None:
    report = dlgc.compile(GUIDE, tmp_path / "shards")

    assert report.ledger["records"] == {"read": 3, "imported": 3, "excluded": 0, "rejected": 0}
    assert report.ledger["dialogues"] == {"imported": 3, "excluded": 0, "compiled": 3, "rejected": 0}
    assert report.ledger["turns"] == {"total": 5, "trained": 5, "untrained": {}}
    assert dlgc.verify(tmp_path / "shards").problems == []
    frame = dlgc.scan(tmp_path / "shards").select("input_ids", "labels").collect()
    assert frame.height == 3
