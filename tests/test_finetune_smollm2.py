"""What the example measures: its metric, its control, its prompts, its interval. The run itself takes far longer."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from training import write_lines

import dlgc

ROOT = Path(__file__).resolve().parent.parent
RECORD: dict[str, Any] = {
    "id": "1",
    "messages": [
        {"role": "user", "content": "A table in San Jose."},
        {"role": "assistant", "content": "Which cuisine?"},
        {"role": "user", "content": "American."},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "Find", "arguments": {"city": "San Jose", "x": "1"}}}],
        },
        {"role": "tool", "content": "[]"},
    ],
    "tools": [{"function": {"name": "Find", "parameters": {"properties": {"city": {}, "x": {}}}}}],
}


@pytest.fixture(scope="module")
def example() -> Any:  # noqa: ANN401  # a module
    spec = importlib.util.spec_from_file_location("finetune_smollm2", ROOT / "examples" / "finetune_smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_dialogue_ends_with_its_first_call(example: Any) -> None:  # noqa: ANN401  # a module
    found = example.until_call(RECORD)
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert found["messages"][0]["content"].endswith("Services:\nFind(city, x)")
    assert json.loads(found["messages"][-1]["content"])["arguments"] == {"city": "San Jose", "x": "1"}
    assert example.until_call({**RECORD, "messages": RECORD["messages"][:3]}) is None


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"name": "Find", "arguments": {"city": "San Jose", "x": "1"}}', 1.0),
        ('{"name": "Find", "arguments": {"city": "San Jose", "x": 1, "y": "2"}}', 0.5),
        ('{"name": "Book", "arguments": {"city": "San Jose", "x": "1"}}', 0.0),
        ('{"name": "Find", "arguments": "San Jose"}', 0.0),
        ("Sure: San Jose", 0.0),
    ],
)
def test_slot_accuracy_is_the_share_of_true_arguments(
    reply: str,
    score: float,
    example: Any,  # noqa: ANN401  # a module
) -> None:
    assert example.slot_accuracy(reply, example.until_call(RECORD)) == score


def test_the_control_has_the_same_replies_in_other_places(example: Any) -> None:  # noqa: ANN401  # a module
    dialogues = [json.loads(json.dumps(example.until_call(RECORD)).replace("San Jose", f"Town {n}")) for n in range(20)]
    dealt = example.shuffled(dialogues)

    def calls(of: list[Any]) -> list[str]:
        return [one["messages"][-1]["content"] for one in of]

    assert sorted(calls(dealt)) == sorted(calls(dialogues))
    assert sum(a == b for a, b in zip(calls(dealt), calls(dialogues), strict=True)) < 5
    assert [one["messages"][1] for one in dealt] == [one["messages"][1] for one in dialogues]


def test_a_prompt_is_all_that_stands_before_the_last_reply(example: Any, tmp_path: Path) -> None:  # noqa: ANN401
    dialogue = example.until_call(RECORD)
    dlgc.compile(write_lines(tmp_path / "d.jsonl", [dialogue, dialogue]), tmp_path / "shards")
    prompts = example.prompts_of(tmp_path / "shards")
    row = dlgc.render(dialogue).row
    stop = len(row.labels) - 1 - next(n for n, label in enumerate(reversed(row.labels)) if label == -100 and n > 1)
    assert prompts == [row.input_ids[: stop + 1]] * 2


def test_the_interval_is_above_zero_only_where_the_difference_is(example: Any) -> None:  # noqa: ANN401  # a module
    low, high = example.interval([1.0] * 30 + [0.0] * 10, [0.0] * 40)
    assert 0.5 < low < 0.75 < high < 1.0
    low, high = example.interval([1.0, 0.0] * 20, [0.0, 1.0] * 20)
    assert low < 0.0 < high
