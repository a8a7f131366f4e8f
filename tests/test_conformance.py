"""Templates with generation tags: text, ids and masks are those of transformers, and targets obey the law.

Real templates, the kinds of dialogue that `behaviour.json` lists and some more, Qwen3's tokenizer. Each is compared
on the messages that were handed to the template.
"""

from __future__ import annotations

import datetime as dt
import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from oracle import trained_runs

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

Message = dict[str, Any]


def user(content: object) -> Message:
    return {"role": "user", "content": content}


def assistant(content: object, **more: object) -> Message:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def calling(arguments: object, count: int = 1) -> Message:
    calls = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": "get_fare", "arguments": arguments}}
        for i in range(count)
    ]
    return assistant(None, tool_calls=calls)


def result(index: int = 0) -> Message:
    content = '{"lowest": 128, "note": "<b>"}'
    return {"role": "tool", "tool_call_id": f"call0000{index}", "name": "get_fare", "content": content}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_fare",
            "description": 'Fare <between> "cities" & more, in 元.',
            "parameters": {
                "type": "object",
                "properties": {
                    "from": {"type": "string", "description": "Start."},
                    "n": {"type": "integer", "description": "How many.", "default": 1.0},
                },
                "required": ["from"],
            },
        },
    }
]
OBJECT = {"from": "重庆", "n": 2.50, "x": None, "big": 123456789012345678901, "small": 1e-7, "list": [1, {"a": True}]}
DIALOGUES: dict[str, list[Message]] = {
    "plain": [user("q1"), assistant("a1"), user("q2"), assistant("a2")],
    "system": [system("be kind"), user("q1"), assistant("a1")],
    "asst_first": [assistant("a0"), user("q1"), assistant("a1")],
    "uu": [user("q1"), user("q1b"), assistant("a1")],
    "mid_system": [user("q1"), assistant("a1"), system("mid"), user("q2"), assistant("a2")],
    "empty_asst": [user("q1"), assistant("")],
    "null_asst": [user("q1"), assistant(None)],
    "parts": [user([{"type": "text", "text": "q1"}]), assistant("a1")],
    "tool_dict": [user("q1"), calling(OBJECT), result(), assistant("a1")],
    "tool_str": [user("q1"), calling('{"from":"重庆", "n":2.50}'), result(), assistant("a1")],
    "tool_two": [
        user("q1"),
        calling({"from": "a"}, 2),
        result(),
        result(1),
        assistant("a1"),
        user("q2"),
        assistant("a2"),
    ],
    "reasoning": [
        user("q1"),
        assistant("a1", reasoning_content="r1"),
        user("q2"),
        assistant("a2", reasoning_content="r2\n\nx"),
    ],
    "think_tags": [user("q1"), assistant("<think>\nhm\n</think>\n\na1"), user("q2"), assistant("a2")],
    "white_space": [user(" q1\n"), assistant("\n  a1 \n\n"), user("q2"), assistant("  a2\n")],
    "scripts": [
        user("naïve café 👩‍👩‍👧 １２３ ﬁ"),
        assistant("下午3:45 以后 العربية\u200b\r\nかな"),
        user("e\u0301"),
        assistant("ok"),
    ],
}
KWARGS: dict[str, dict[str, object]] = {"no_thinking": {"enable_thinking": False}}


def tagged(shared: Path) -> list[Path]:
    """Every real template with generation tags, TRL's and others."""
    return sorted(
        path
        for path in (shared / "templates").glob("*/*.jinja")
        if "{% generation" in path.read_text() or "{%- generation" in path.read_text()
    )


@pytest.fixture(scope="module")
def tokenizer(qwen3: Path) -> Any:  # noqa: ANN401  # transformers ships no types
    return transformers.AutoTokenizer.from_pretrained(qwen3)


def renderer(path: Path, qwen3: Path, mask: str) -> _dlgc.Renderer:
    today = dt.datetime.now().astimezone().date().isoformat()
    options = {"tokenizer": str(qwen3), "chat_template": str(path), "mask": mask, "date": today}
    return _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())


def records() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, messages in DIALOGUES.items():
        record: dict[str, Any] = {"messages": messages}
        if name.startswith("tool"):
            record["tools"] = TOOLS
        found.append((name, record))
    found.append(("no_thinking", {"messages": DIALOGUES["plain"], "chat_template_kwargs": KWARGS["no_thinking"]}))
    return found


def test_text_ids_and_masks_are_those_of_transformers(shared: Path, qwen3: Path, tokenizer: Any) -> None:  # noqa: ANN401  # no types
    templates = tagged(shared)
    assert len(templates) >= 20
    compared, refused = 0, {}
    for path in templates:
        source = path.read_text()
        compat, template = renderer(path, qwen3, "hf-compat"), renderer(path, qwen3, "template")
        for name, record in records():
            text = json.dumps(record, ensure_ascii=False).encode()
            found = json.loads(compat.render(text))
            where = f"{path.name} {name}"
            if found["text"] is None:
                refused[where] = sorted({item["code"] for item in found["diagnostics"] if item["severity"] == "error"})
                assert refused[where], where
                continue
            common = {
                "tools": record.get("tools"),
                "chat_template": source,
                "return_dict": True,
                **record.get("chat_template_kwargs", {}),
            }
            messages = json.loads(found["messages"])
            theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, **common)
            their_text = tokenizer.apply_chat_template(messages, tokenize=False, **common)
            assert found["text"] == their_text, where
            (row,) = found["rows"]
            assert row["input_ids"] == theirs["input_ids"], where
            assert [int(label != -100) for label in row["labels"]] == theirs["assistant_masks"], where
            ours = json.loads(template.render(text))
            (our_row,) = ours["rows"]
            assert our_row["input_ids"] == row["input_ids"], where
            for block, token, label in zip(*inside(our_row, source, tokenizer, messages, common), strict=True):
                assert (label != -100) == block, f"{where}: token {token}"
            compared += 1
    # What is refused is refused with a reason that fits: nothing is refused by accident.
    codes = {code for found in refused.values() for code in found}
    assert codes <= {"template-refused", "field-lost", "control-token"}, refused
    assert compared >= 0.8 * len(templates) * len(records()), (compared, refused)
    print(f"{compared} renderings equal, {len(refused)} refused: {refused}")


def inside(ours: dict[str, Any], source: str, tokenizer: Any, messages: list[Message], common: dict[str, Any]) -> Any:  # noqa: ANN401  # no types
    """For each token: whether it lies wholly inside a block as transformers tracks them, its text, our label."""
    del source
    from transformers.utils.chat_template_utils import render_jinja_template

    kwargs = {key: value for key, value in common.items() if key not in ("return_dict", "tools", "chat_template")}
    _, blocks = render_jinja_template(
        [messages],
        tools=common["tools"],
        chat_template=common["chat_template"],
        return_assistant_tokens_mask=True,
        **{**tokenizer.special_tokens_map, **kwargs},
    )
    text = ours["text"]
    edges = [(len(text[:start].encode()), len(text[:end].encode())) for start, end in blocks[0]]
    flags = [any(start <= first and last <= end for start, end in edges) for first, last in ours["offsets"]]
    pieces = [text.encode()[first:last] for first, last in ours["offsets"]]
    return flags, pieces, ours["labels"]


def test_trained_turns_obey_the_law_of_the_prompt(shared: Path, qwen3: Path, tokenizer: Any) -> None:  # noqa: ANN401  # no types
    trained, untrained, whole = 0, 0, 0
    for path in tagged(shared):
        source = path.read_text()
        exact = renderer(path, qwen3, "exact")
        for name, record in records():
            found = json.loads(exact.render(json.dumps(record, ensure_ascii=False).encode()))
            if found["text"] is None:
                continue
            messages = json.loads(found["messages"])
            common = {"tools": record.get("tools"), "chat_template": source, **record.get("chat_template_kwargs", {})}
            verdicts = {turn["message"]: turn for turn in found["turns"]}
            untrained += sum("code" in turn for turn in verdicts.values())
            seen = [message for row in found["rows"] for message in row["trained_messages"]]
            assert sorted(seen) == [message for message, turn in verdicts.items() if "code" not in turn]
            # The message's index in the record is its place in the list, unless messages were merged.
            if len(messages) != len(record["messages"]):
                continue
            for row in found["rows"]:
                runs = trained_runs(row["labels"])
                assert len(runs) == len(row["trained_messages"]), f"{path.name} {name}"
                for (start, end), place in zip(runs, row["trained_messages"], strict=True):
                    where = f"{path.name} {name} message {place}"
                    prompt = tokenizer.apply_chat_template(
                        messages[:place], add_generation_prompt=True, return_dict=True, **common
                    )["input_ids"]
                    assert row["input_ids"][:start] == prompt, where
                    target = tokenizer.decode(row["input_ids"][start:end])
                    newest = tokenizer.apply_chat_template(messages[: place + 1], tokenize=False, **common)
                    newest = unicodedata.normalize("NFC", newest)  # as this tokenizer does before it encodes
                    before = tokenizer.decode(prompt)
                    if newest.startswith(before):
                        assert newest.startswith(before + target), where
                        assert newest[len(before + target) :].strip() == "", where
                        whole += 1
                    else:
                        assert newest.rstrip().endswith(target), where
                    trained += 1
    print(f"{trained} trained turns obey the law ({whole} begin with the whole prompt), {untrained} are untrained")
    assert trained >= 400
