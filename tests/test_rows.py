"""Templates as models ship them, without tags: turns share a row where their prompts nest, else each has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from oracle import trained_runs

import dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

REASONING: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "你是数学老师。"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "reasoning_content": "two and two", "content": "4"},
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "reasoning_content": "three and three", "content": "6"},
        {"role": "user", "content": "and 4+4?"},
        {"role": "assistant", "content": "8, without thinking"},
    ]
}


def options(shared: Path, qwen3: Path) -> dict[str, str]:
    return {"tokenizer": str(qwen3), "chat_template": str(shared / "templates" / "llama.cpp" / "Qwen-Qwen3-0.6B.jinja")}


@pytest.mark.parametrize("kwargs", [{}, {"enable_thinking": False}])
def test_reasoning_that_history_drops_is_trained_once_after_the_servers_prompt(
    shared: Path, qwen3: Path, kwargs: dict[str, object]
) -> None:
    chosen = options(shared, qwen3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(qwen3)
    template = (shared / "templates" / "llama.cpp" / "Qwen-Qwen3-0.6B.jinja").read_text()
    rendered = dlgc.render({**REASONING, "chat_template_kwargs": kwargs}, **chosen)
    assert sorted(message for row in rendered.rows for message in row.trained_messages) == [2, 4, 6]
    targets = []
    for row in rendered.rows:
        for (start, end), message in zip(trained_runs(row.labels), row.trained_messages, strict=True):
            prompt = tokenizer.apply_chat_template(
                rendered.messages[:message],
                add_generation_prompt=True,
                chat_template=template,
                return_dict=True,
                **kwargs,
            )["input_ids"]
            assert row.input_ids[:start] == prompt
            targets.append(tokenizer.decode(row.input_ids[start:end]))
    said = "".join(targets)
    for text in ("two and two", "three and three", "4<|im_end|>", "6<|im_end|>", "8, without thinking<|im_end|>"):
        assert said.count(text) == 1, text
    codes = {item["code"] for item in rendered.diagnostics}
    assert codes <= {"own-row"}, codes


def test_a_dataset_with_rows_of_their_own_verifies_and_its_ledger_closes(
    shared: Path, qwen3: Path, examples: Path, tmp_path: Path
) -> None:
    report = dlgc.compile(examples / "tool_en.jsonl", tmp_path / "out", **options(shared, qwen3))
    turns = report.ledger["turns"]
    assert turns["total"] == turns["trained"] == 71
    assert report.rows > 14
    assert report.tokens > report.source_tokens
    verdict = dlgc.verify(tmp_path / "out")
    assert verdict.problems == []
    assert verdict.targets == 71


def test_where_no_stop_is_printed_the_models_own_ends_the_target() -> None:
    template = (
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    rendered = render_with(template, "hello there")
    assert rendered.text == "user: hi\nassistant: hello there\n"
    row = rendered.row
    assert row.text == "user: hi\nassistant: hello there<|im_end|>"
    assert row.input_ids[-1] == row.labels[-1] == 1
    assert {item["code"] for item in rendered.diagnostics} == {"own-row", "stop-appended"}


def test_a_template_that_rewrites_what_is_said_proves_nothing() -> None:
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | replace('ö', 'o') }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(dlgc.RejectedError) as raised:
        render_with(template, "hellö")
    assert {item["code"] for item in raised.value.diagnostics} <= {"field-lost", "target-unproved"}


def test_a_stop_inside_what_is_said_is_not_the_stop() -> None:
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "{% if not loop.last or message.role == 'user' %}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rendered = render_with(template, "say <|im_end|>", control_tokens="text")
    assert rendered.row.text.endswith("say <|im_end|><|im_end|>")
    assert rendered.row.input_ids.count(1) == 2  # the user's stop, and the one that was appended


def test_contents_that_repeat_each_other_are_told_apart() -> None:
    messages = [{"role": role, "content": "yes"} for role in ("user", "assistant") * 3]
    rendered = dlgc.render({"messages": messages})
    assert [turn["target"] for turn in rendered.turns] == ["yes<|im_end|>"] * 3
    assert rendered.row.trained_messages == [1, 3, 5]


def render_with(template: str, answer: str, **more: object) -> dlgc.Rendered:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chat.jinja"
        path.write_text(template)
        record = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]}
        return dlgc.render(record, chat_template=str(path), **more)


CHATML = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


# What fuzzing found (`scripts/fuzz.py`), as small as it gets.


def test_a_content_that_is_nothing_but_a_tag_is_not_lost_in_silence(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    calls = "{% if message.tool_calls %}<|im_start|>assistant\n{{ message.tool_calls | tojson }}<|im_end|>\n{% else %}"
    template.write_text("{% for message in messages %}" + calls + CHATML + "{% endif %}{% endfor %}" + PROMPT)
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": "x"}}}
    said: dict[str, Any] = {"role": "assistant", "content": "<b>", "tool_calls": [call]}
    with pytest.raises(dlgc.RejectedError) as raised:
        dlgc.render({"messages": [{"role": "user", "content": "q"}, said]}, chat_template=str(template))
    assert [item["code"] for item in raised.value.diagnostics if item["severity"] == "error"] == ["field-lost"]
    said["content"] = ""
    assert dlgc.render({"messages": [{"role": "user", "content": "q"}, said]}, chat_template=str(template)).turns


@pytest.mark.parametrize("arguments", [{"b": True}, '{"b": [" "]}', {}])
def test_a_second_call_without_a_word_is_not_lost_in_silence(arguments: object, tmp_path: Path) -> None:
    # gpt-oss shows one call of a turn. This one has no text to be missed, and its name stands elsewhere.
    template = tmp_path / "chat.jinja"
    shown = "{% set call = message.tool_calls[0].function %}to=f.{{ call.name }} {{ call.arguments | tojson }}"
    template.write_text(
        "{% for message in messages %}{% if message.tool_calls %}<|im_start|>assistant\n" + shown + "<|im_end|>\n"
        "{% elif message.role == 'tool' %}<|im_start|>{{ message.name }}\n{{ message.content }}<|im_end|>\n"
        "{% else %}" + CHATML + "{% endif %}{% endfor %}" + PROMPT
    )
    calls = [{"type": "function", "function": {"name": "f", "arguments": given}} for given in ({"a": "f"}, arguments)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "f"}, {"role": "assistant", "tool_calls": calls}]
    messages.extend({"role": "tool", "name": "f", "content": text} for text in ("7", "8"))
    messages.append({"role": "assistant", "content": "so"})
    with pytest.raises(dlgc.RejectedError) as raised:
        dlgc.render({"messages": messages}, chat_template=str(template))
    assert [item["code"] for item in raised.value.diagnostics if item["severity"] == "error"] == ["field-lost"]
    del calls[1], messages[-2]
    assert dlgc.render({"messages": messages}, chat_template=str(template)).turns


def test_two_targets_side_by_side_have_rows_of_their_own(tmp_path: Path) -> None:
    # A second assistant message in a row is printed without a header, right after the stop of the first.
    template, source = tmp_path / "chat.jinja", tmp_path / "talk.jsonl"
    template.write_text(
        "{% for message in messages %}{% if message.role == 'user' %}<|im_start|>user\n{{ message.content }}<|im_end|>"
        "<|im_start|>assistant\n{% else %}{{ message.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    source.write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, '
        '{"role": "assistant", "content": "b"}, {"role": "user", "content": "r"}, '
        '{"role": "assistant", "content": "c"}]}'
    )
    report = dlgc.compile(source, tmp_path / "out", chat_template=template)
    assert (report.ledger["turns"]["trained"], report.rows) == (3, 2)
    assert dlgc.verify(tmp_path / "out", source=[source]).problems == []
    report = dlgc.compile(source, tmp_path / "whole", chat_template=template, target="template")
    assert (report.ledger["turns"]["trained"], report.rows) == (3, 1)
    assert dlgc.verify(tmp_path / "whole", source=[source]).problems == []


def test_filters_take_none_for_nothing(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    source = (
        "{% for f in [none, undefined, [], 0] %}{{ f | map('upper') | list }}{{ f | selectattr('a') | list }}"
        "{{ f | reject | list }}{% endfor %}{% for message in messages %}" + CHATML + "{% endfor %}" + PROMPT
    )
    template.write_text(source)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rendered = dlgc.render({"messages": messages}, chat_template=str(template))
    jinja2 = pytest.importorskip("jinja2", reason="jinja2 is not installed")
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert rendered.text == environment.from_string(source).render(messages=messages)


def test_a_row_of_its_own_has_no_space_that_nobody_said(
    shared: Path, real_tokenizer: Callable[[str], Path], tmp_path: Path
) -> None:
    # The prompt ends in `<think>`, whose last piece merges with what follows; alone, the turn would get a space.
    tokenizer, template = (
        real_tokenizer("llama2"),
        shared / "templates" / "llama.cpp" / "deepseek-ai-DeepSeek-V3.2.jinja",
    )
    source = tmp_path / "talk.jsonl"
    source.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a1"}]}')
    report = dlgc.compile(source, tmp_path / "out", tokenizer=tokenizer, chat_template=template)
    assert report.ledger["turns"]["trained"] == 1
    # The stop holds SentencePiece's sign for a space: it can be said, and is no token.
    assert set(report.diagnostics) == {"own-row", "stop-not-a-token"}
    row = dlgc.render(source.read_bytes(), tokenizer=str(tokenizer), chat_template=str(template)).row
    decode = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer).decode
    assert decode(row.input_ids).replace(" ", "") == row.text.replace("\u2581", "").replace(" ", "")
    assert "> a1" not in decode(row.input_ids)
    assert dlgc.verify(tmp_path / "out", source=[source]).problems == []
