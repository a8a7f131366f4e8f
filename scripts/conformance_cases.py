"""What conformance is shown on: the small kinds of dialogue, and real dialogues chosen by hash.

The rule, fixed before anything was rendered: of each set the records with the smallest SHA-256 of their bytes, as many
as the set's quota, among those of at most `LARGEST` bytes that dlgc's importers read; then the `LONGER` records with
the smallest hash among the larger ones of all sets.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
LARGEST = 16 * 1024
LONGER = 5

Json = Any  # what `json.loads` gives
Message = dict[str, Json]

# Quotas by set; a set is a file, or a folder of JSON Lines.
SETS: dict[str, tuple[Path, int]] = {
    "tinker": (SHARED / "data/tinker-conversations/conversations.jsonl", 40),
    "fastchat": (SHARED / "data/fastchat/dummy_conversation.json.gz", 40),
    "glaive-en": (SHARED / "data/llamafactory/glaive_toolcall_en_demo.json.gz", 50),
    "glaive-zh": (SHARED / "data/llamafactory/glaive_toolcall_zh_demo.json.gz", 50),
    "tau-bench": (SHARED / "data/tau-bench/gpt-4o-airline.trials01.json.gz", 8),
    "smile": (SHARED / "data/smile/smile.jsonl.zst", 40),
    "examples": (ROOT / "examples/dialogues", 40),
    "reason-tool-use": (SHARED / "data/llamafactory/reason_tool_use_demo_50.jsonl.gz", 25),
    "reason-tool-use-tags": (SHARED / "data/llamafactory/reason_tool_use_demo_50.jsonl.gz", 15),
}
# A template that takes everything and prints it: dlgc's own reading of a record, in OpenAI's form.
PERMISSIVE = (
    "{{ tools | tojson }}{{ documents | tojson }}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content is defined %}{{ message.reasoning_content | tojson }}{% endif %}"
    "{% if message.content is defined %}{{ message.content | tojson }}{% endif %}"
    "{% if message.tool_calls is defined %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """A dialogue.

    Attributes:
        name: Its set and number.
        kind: `kind`, `real` or `longer`.
        record: The record's bytes, as dlgc gets them.
        messages: The messages as dlgc's importers read them, before any template's wishes.
        around: `tools`, `documents` and template arguments, as `apply_chat_template` takes them.
    """

    name: str
    kind: str
    record: bytes
    messages: list[Message]
    around: dict[str, Json] = field(default_factory=dict)


def kinds() -> list[Case]:
    """The dialogues of `tests/test_conformance.py`, and one with documents."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_conformance

    documents = [
        {"title": "Fares", "text": "A day ticket is 12.50 €."},
        {"title": "Zeiten", "text": "Letzter Zug: 23:45 <täglich>"},
    ]
    records = [*test_conformance.records()]
    records.append(("documents", {"messages": test_conformance.DIALOGUES["plain"], "documents": documents}))
    read = reader()
    cases = []
    for name, record in records:
        case = read(name, "kind", json.dumps(record, ensure_ascii=False).encode())
        if case is None:
            raise RuntimeError(f"the kind `{name}` cannot be imported")
        cases.append(case)
    return cases


def real(sets: dict[str, tuple[Path, int]] = SETS) -> list[Case]:
    """The chosen real dialogues, `longer` ones last."""
    read = reader()
    chosen: list[Case] = []
    larger: dict[str, tuple[str, bytes]] = {}
    for name, (path, quota) in sets.items():
        found = 0
        for digest, number, record in sorted(_hashed(name, path)):
            if len(record) > LARGEST:
                larger[digest] = (f"{name} {number}", record)
            elif found < quota and (case := read(f"{name} {number}", "real", record)) is not None:
                chosen.append(case)
                found += 1
        if found < quota:
            raise RuntimeError(f"`{name}` has only {found} dialogues for a quota of {quota}")
    longer = 0
    for digest in sorted(larger):
        case = read(larger[digest][0], "longer", larger[digest][1]) if longer < LONGER else None
        if case is not None:
            chosen.append(case)
            longer += 1
    return chosen


def reader() -> Callable[[str, str, bytes], Case | None]:
    """Reads records as dlgc's importers do; `None` where they refuse one."""
    options = dlgc.CompileOptions.of(
        {"chat_template": str(_permissive()), "control_tokens": "allow", "max_length": "none"}
    )
    renderer = _dlgc.Renderer(options.to_json())

    def read(name: str, kind: str, record: bytes) -> Case | None:
        found = json.loads(renderer.render(record))
        if found["text"] is None:
            return None
        given = json.loads(record)
        around = {"tools": _tools(given.get("tools")), "documents": given.get("documents")}
        kwargs = given.get("chat_template_kwargs") or {}
        return Case(name, kind, record, json.loads(found["messages"]), around | kwargs)

    return read


def _permissive() -> Path:
    from real_tokenizers import CACHE

    path = CACHE / "conformance" / "permissive.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != PERMISSIVE:
        path.write_text(PERMISSIVE)
    return path


def _tools(tools: Json) -> Json:
    """Tools as templates expect them: a list, each function in its wrapper."""
    if isinstance(tools, str):
        tools = json.loads(tools) if tools.strip() else None
    if not tools:
        return None
    bare = [isinstance(tool, dict) and "name" in tool and not {"function", "type"} & tool.keys() for tool in tools]
    return [
        {"type": "function", "function": tool} if is_bare else tool for tool, is_bare in zip(tools, bare, strict=True)
    ]


def _hashed(name: str, path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Hash, number and bytes of each record of a set."""
    for number, record in enumerate(_records(path), 1):
        digest = hashlib.sha256(record).hexdigest()
        if name.startswith("reason-tool-use"):
            # One half has its reasoning in a field, the other in tags inside the content.
            in_tags = int(digest[-1], 16) % 2 == 1
            if in_tags != name.endswith("-tags"):
                continue
            yield digest, number, _from_typed_parts(json.loads(record), in_tags=in_tags)
        else:
            yield digest, number, record


def _records(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        for file in sorted(path.glob("*.jsonl")):
            yield from _records(file)
        return
    if path.suffix == ".zst":
        import pyarrow as pa

        with pa.input_stream(str(path), compression="zstd") as stream:
            data = stream.read()
    else:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not data.lstrip().startswith(b"["):
        yield from (line for line in data.split(b"\n") if line.strip())
        return
    text, decoder = data.decode(), json.JSONDecoder()
    at = text.index("[") + 1
    while True:
        while text[at] in " \n\r\t,":
            at += 1
        if text[at] == "]":
            return
        _, end = decoder.raw_decode(text, at)
        yield text[at:end].encode()
        at = end


def _from_typed_parts(record: Json, *, in_tags: bool) -> bytes:
    """A record of LLaMA-Factory's typed parts, which dlgc does not read, in OpenAI's form."""
    messages = []
    for given in record["messages"]:
        parts: dict[str, list[str]] = {}
        for part in given["content"]:
            parts.setdefault(part["type"], []).append(part["value"])
        message: Message = {"role": given["role"], "content": "\n".join(parts.get("text", [])) or None}
        reasoning = "\n".join(parts.get("reasoning", []))
        if reasoning and in_tags:
            message["content"] = f"<think>\n{reasoning}\n</think>\n\n{message['content'] or ''}"
        elif reasoning:
            message["reasoning_content"] = reasoning
        if "tool_call" in parts:
            message["tool_calls"] = [{"type": "function", "function": json.loads(call)} for call in parts["tool_call"]]
        messages.append(message)
    return json.dumps({"messages": messages, "tools": record["tools"]}, ensure_ascii=False).encode()
