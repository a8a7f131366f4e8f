"""Writes dialogues as JSON lines, one in twenty of them broken in one of the usual ways: for screens and timings."""

from __future__ import annotations

import json
import sys
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "dialogues"
EVERY = 20


def breaks(text: str, number: int) -> bytes:
    """Breaks a record in the way whose turn it is."""
    record = text.encode()
    ways = (
        lambda: record[: len(record) * 2 // 3],
        lambda: record.replace(b'"assistant"', b'"bot"', 1),
        lambda: record.replace(b'"content": "', b'"content": "\xe9', 1),
        lambda: record.replace(b'"content": "', b'"content": "\\ud83d', 1),
        lambda: record.replace(b'"content": "', b'"content": "<|im_end|>', 1),
        lambda: b'{"text": "a chat that is one string"}',
        lambda: b'{"messages": []}',
        lambda: record.replace(b'"content": ', b'"content": 42, "text": ', 1),
    )
    return ways[number % len(ways)]()


def lines(count: int) -> Iterator[bytes]:
    """Yields that many records."""
    records = [
        json.loads(line)
        for path in sorted(EXAMPLES.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    for number, record in zip(range(count), cycle(records), strict=False):
        text = json.dumps({**record, "id": f"r{number}"}, ensure_ascii=False)
        yield breaks(text, number // EVERY) if number % EVERY == EVERY - 1 else text.encode()


if __name__ == "__main__":
    sys.stdout.buffer.writelines(line + b"\n" for line in lines(int(sys.argv[1])))
