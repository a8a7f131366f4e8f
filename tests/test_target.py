"""`--target`: after the prompt that a server sends, or as the whole dialogue shows it; and named templates."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import dlgc

if TYPE_CHECKING:
    from pathlib import Path

USER = {"role": "user", "content": "fare?"}
TALK = [
    USER,
    {"role": "assistant", "reasoning_content": "It is known.", "content": "128 yuan."},
    {"role": "user", "content": "and back?"},
    {"role": "assistant", "reasoning_content": "The same.", "content": "128 too."},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_fare", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}},
    }
]


@pytest.fixture
def qwen3_template(shared: Path) -> Path:
    return shared / "templates" / "trl" / "qwen3.jinja"


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def trained(shards: Path) -> list[list[str]]:
    """The text of each run of trained tokens, by row."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(shards / "tokenizer")
    rows = dlgc.scan(shards).select("labels").collect()["labels"].to_list()
    return [[tokenizer.decode(run) for run in runs(row)] for row in rows]


def runs(labels: list[int]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for label in labels:
        if label >= 0:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def test_a_whole_dialogue_is_one_row(qwen3: Path, qwen3_template: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "talk.jsonl", {"messages": TALK}, {"messages": TALK[:2]})
    options: dict[str, Any] = {"tokenizer": qwen3, "chat_template": qwen3_template}
    report = dlgc.compile(source, tmp_path / "inference", **options)
    assert report.diagnostics["own-row"]["count"] == 1
    assert trained(tmp_path / "inference") == [
        ["<think>\nThe same.\n</think>\n\n128 too.<|im_end|>"],
        ["<think>\nIt is known.\n</think>\n\n128 yuan.<|im_end|>"],
        ["<think>\nIt is known.\n</think>\n\n128 yuan.<|im_end|>"],
    ]
    report = dlgc.compile(source, tmp_path / "whole", target="template", **options)
    assert trained(tmp_path / "whole") == [
        ["128 yuan.<|im_end|>", "<think>\nThe same.\n</think>\n\n128 too.<|im_end|>"],
        ["<think>\nIt is known.\n</think>\n\n128 yuan.<|im_end|>"],
    ]
    counts = {code: tally["count"] for code, tally in report.diagnostics.items()}
    assert counts == {"target-differs": 1, "reasoning-lost": 1}
    assert report.statement == (
        "3 targets in 2 rows, each as its whole dialogue is rendered, ending in its stop token; "
        "targets that are not what follows the prompt of a server: 1"
    )
    assert report.tokens == report.source_tokens
    verdict = dlgc.verify(tmp_path / "whole", source=[source])
    assert verdict.sound, verdict
    manifest = dlgc.manifest(tmp_path / "whole")
    assert manifest["options"]["target"] == "template"
    assert manifest["certificate"]["proof"] == "rendering"


def test_a_strict_run_does_not_train_after_other_prompts(qwen3: Path, qwen3_template: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "talk.jsonl", {"messages": TALK})
    options: dict[str, Any] = {"tokenizer": qwen3, "chat_template": qwen3_template, "strict": True}
    report = dlgc.compile(source, tmp_path / "whole", target="template", **options)
    assert report.failure == "`target-differs` was found, and the run is strict"


def test_a_target_may_begin_inside_a_token(qwen3: Path, shared: Path, tmp_path: Path) -> None:
    template = shared / "templates" / "trl" / "qwen2_5.jinja"
    source = write(tmp_path / "talk.jsonl", {"messages": [USER, {"role": "assistant", "content": "\n128 yuan."}]})
    options: dict[str, Any] = {"tokenizer": qwen3, "chat_template": template}
    dlgc.compile(source, tmp_path / "inference", **options)
    assert trained(tmp_path / "inference") == [["\n128 yuan.<|im_end|>"]]
    report = dlgc.compile(source, tmp_path / "whole", target="template", **options)
    assert trained(tmp_path / "whole") == [["128 yuan.<|im_end|>"]]
    counts = {code: tally["count"] for code, tally in report.diagnostics.items()}
    assert counts == {"target-cut": 1, "target-differs": 1}


def named(qwen3: Path, folder: Path, *, as_files: bool, **templates: str) -> Path:
    """Qwen3's tokenizer with other templates, in files or in the configuration."""
    shutil.copytree(qwen3, folder, ignore=shutil.ignore_patterns("*.jinja"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    if as_files:
        for name, source in templates.items():
            path = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(source, encoding="utf-8")
    else:
        config["chat_template"] = [{"name": name, "template": source} for name, source in templates.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


PLAIN = """\
{%- if tools is defined and tools %}{{ raise_exception('no tools here') }}{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WITH_TOOLS = "TOOLS {{ tools | tojson }}\n" + PLAIN.partition("\n")[2]


@pytest.mark.parametrize("as_files", [True, False])
def test_dialogues_with_tools_have_the_template_for_tools(qwen3: Path, tmp_path: Path, *, as_files: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = named(qwen3, tmp_path / "named", as_files=as_files, default=PLAIN, tool_use=WITH_TOOLS, rag="{{ 1 }}")
    records = [{"messages": TALK[:2]}, {"messages": TALK[:2], "tools": TOOLS}]
    for message in records[0]["messages"]:
        message.pop("reasoning_content", None)  # type: ignore[attr-defined]  # messages are objects
    source = write(tmp_path / "both.jsonl", *records)
    report = dlgc.compile(source, tmp_path / "shards", tokenizer=folder)
    assert report.ledger["dialogues"]["compiled"] == 2, report.diagnostics
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = dlgc.scan(tmp_path / "shards").select("input_ids").collect()["input_ids"].to_list()
    for row, record in zip(rows, records, strict=True):
        text = tokenizer.apply_chat_template(record["messages"], tools=record.get("tools"), tokenize=False)
        assert row == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert text.startswith("TOOLS") == ("tools" in record)
    # What lies beside the shards is what was used, as transformers reads it, and no more.
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "shards" / "tokenizer")
    assert kept.chat_template == {"default": PLAIN, "tool_use": WITH_TOOLS}
    assert dlgc.verify(tmp_path / "shards", source=[source]).sound
    assert not dlgc.drift(tmp_path / "shards", tokenizer=folder).drifted
    other = named(qwen3, tmp_path / "other", as_files=True, default=PLAIN, tool_use=WITH_TOOLS.replace("TOOLS", "T"))
    drift = dlgc.drift(tmp_path / "shards", tokenizer=other)
    assert drift.drifted
    assert any(
        canary["difference"] for canary in drift.canaries if "tools" in json.loads(canary_record(tmp_path, canary))
    )


def canary_record(folder: Path, canary: dict[str, Any]) -> str:
    canaries = dlgc.manifest(folder / "shards")["canaries"]
    return next(str(known["record"]) for known in canaries if known["name"] == canary["name"])


def test_one_named_template_is_for_all(qwen3: Path, tmp_path: Path) -> None:
    folder = named(qwen3, tmp_path / "named", as_files=True, default=PLAIN, tool_use=WITH_TOOLS)
    source = write(
        tmp_path / "tools.jsonl", {"messages": [USER, {"role": "assistant", "content": "128"}], "tools": TOOLS}
    )
    report = dlgc.compile(source, tmp_path / "default", tokenizer=folder, chat_template="default")
    assert report.diagnostics["template-refused"]["count"] == 1
    report = dlgc.compile(source, tmp_path / "tools", tokenizer=folder, chat_template="tool_use")
    assert report.ledger["dialogues"]["compiled"] == 1
    assert not (tmp_path / "tools" / "tokenizer" / "additional_chat_templates").exists()


def test_a_default_template_is_needed(qwen3: Path, tmp_path: Path) -> None:
    folder = named(qwen3, tmp_path / "named", as_files=False, tool_use=WITH_TOOLS, rag=PLAIN)
    source = write(tmp_path / "talk.jsonl", {"messages": TALK})
    with pytest.raises(dlgc.TemplateError, match=re.escape("is the default: `rag`, `tool_use`")):
        dlgc.compile(source, tmp_path / "shards", tokenizer=folder)
