"""The comparison behind `make conformance` sees what it is there to see: each kind of fault is planted once."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import conformance_cases as cases
import conformance_fields as fields
from conformance_compare import Cell, Outcome, Reference, Template
from transformers.utils import chat_template_utils

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dlgc import _dlgc

# The clock that stands still is for the script's own runs, not for the tests beside this one.
chat_template_utils.datetime = dt.datetime

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two words"}] * 2}


@pytest.fixture(scope="module")
def reference(qwen3: Path) -> Reference:
    return Reference(qwen3)


class Planted:
    """dlgc's renderer, with a fault put into what it gives."""

    def __init__(self, renderer: _dlgc.Renderer, fault: Callable[[dict[str, Any]], None]) -> None:
        """Takes the renderer and the fault."""
        self._renderer = renderer
        self._fault = fault

    def render(self, record: bytes) -> str:
        """What it gives, spoilt."""
        found = json.loads(self._renderer.render(record))
        self._fault(found)
        return json.dumps(found)


def outcome(
    reference: Reference,
    folder: Path,
    source: str,
    record: dict[str, Any],
    fault: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Outcome:
    path = folder / "template.jinja"
    path.write_text(source)
    case = cases.reader()("planted", "kind", json.dumps(record).encode())
    assert case is not None
    cell = Cell(Template(path), reference)
    cell._renderer = Planted(cell._renderer, fault)  # type: ignore[assignment]  # noqa: SLF001  # the door for faults
    return cell.run(case)


def wrong_text(found: dict[str, Any]) -> None:
    found["text"] = found["text"].replace("one", "One", 1)


def wrong_id(found: dict[str, Any]) -> None:
    found["rows"][0]["input_ids"][-1] += 1


def early_target(found: dict[str, Any]) -> None:
    labels, ids = found["rows"][0]["labels"], found["rows"][0]["input_ids"]
    start = next(index for index, label in enumerate(labels) if label != -100)
    labels[start - 1] = ids[start - 1]


def short_target(found: dict[str, Any]) -> None:
    labels = found["rows"][0]["labels"]
    end = max(index for index, label in enumerate(labels) if label != -100)
    labels[end] = -100


def wrong_target(found: dict[str, Any]) -> None:
    found["turns"][0]["target"] = found["turns"][0]["target"].removesuffix("<|im_end|>")


def lost_turn(found: dict[str, Any]) -> None:
    found["rows"][0]["labels"] = [-100] * len(found["rows"][0]["labels"])
    found["rows"][0]["trained_messages"] = []


def wrong_message(found: dict[str, Any]) -> None:
    found["messages"] = found["messages"].replace("two words", "two word")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (wrong_text, "text"),
        (wrong_id, "ids"),
        (early_target, "prompt ids"),
        (short_target, "target decodes"),
        (wrong_target, "target"),
        (lost_turn, "turns"),
        (wrong_message, "normalised"),
    ],
)
def test_a_planted_fault_is_found(
    reference: Reference, tmp_path: Path, fault: Callable[[dict[str, Any]], None], expected: str
) -> None:
    assert outcome(reference, tmp_path, CHATML, PLAIN).mismatches == []
    found = outcome(reference, tmp_path, CHATML, PLAIN, fault)
    assert expected in {kind for kind, _ in found.mismatches}, found.mismatches


def test_what_a_template_drops_is_lost(reference: Reference, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {}}}]
    dropped = outcome(reference, tmp_path, CHATML, PLAIN | {"tools": tools})
    assert (dropped.ours, dropped.theirs, dropped.lost) == ("field-lost", "lost", ["tool"])
    hides = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}" + CHATML
    assert outcome(reference, tmp_path, hides, PLAIN | {"tools": tools}).theirs == "kept"


def test_where_transformers_raises_dlgc_must_refuse(reference: Reference, tmp_path: Path) -> None:
    raises = "{% if messages[0].content == 'one' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    found = outcome(reference, tmp_path, raises, PLAIN)
    assert (found.ours, found.theirs, found.mismatches) == ("template-refused", "raised", [])


def test_forms_say_the_same() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"a": "ü", "n": 1}}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "assistant", "content": "c"},
    ]
    found = list(fields.forms(messages))
    assert len(found) == 16
    assert all(fields.canonical(form) == fields.canonical(messages) for form in found)
    assert fields.canonical(messages) != fields.canonical(messages[1:])


def test_the_choice_of_dialogues_is_by_hash(tmp_path: Path) -> None:
    records = [json.dumps(PLAIN | {"id": str(number)}).encode() for number in range(9)]
    (tmp_path / "set.jsonl").write_bytes(b"\n".join(records))
    chosen = cases.real({"set": (tmp_path / "set.jsonl", 4)})
    assert [case.record for case in chosen] == sorted(records, key=lambda record: hashlib.sha256(record).hexdigest())[
        :4
    ]
