"""What TRL would train, beside our rows: TRL is really asked, and what is reported is what its labels say.

What TRL trains is found out here on another way than the module's: by its preparation alone, without a trainer. What
each token of it is, is read from the text.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from oracle import trained_runs

import dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlgc.against import Compared

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(find_spec("trl") is None, reason="training is not installed: pip install 'dlgc[train]'"),
    # TRL imports torch's JIT and uses transformers' older names: nothing that a caller could do otherwise
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
]

ROOT = Path(__file__).resolve().parent.parent
DIALOGUES = ROOT / "examples" / "dialogues"
UNTRAINED = -100
CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n", re.DOTALL)
LLAMA = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
BLOCKS = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        HEADER
        {%- generation %}TURN{% endgeneration %}
        REST
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "It is four."},
        {"role": "user", "content": "And 3 + 3?"},
        {"role": "assistant", "content": "That is six."},
    ]
}


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in tokenizer as a folder, as it lies beside shards."""
    work = tmp_path_factory.mktemp("builtin")
    dlgc.compile(DIALOGUES / "guide.jsonl", work / "shards")
    return work / "shards" / "tokenizer"


def example(name: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DIALOGUES / name).read_text().splitlines()[number - 1])
    return found


def compared(record: dict[str, Any], settings: str, tokenizer: Path, **options: object) -> Compared:
    """Compares, and checks what holds for every comparison: nothing is counted twice, or not at all."""
    from dlgc.against import compare

    options["tokenizer"] = str(tokenizer)
    rendered = dlgc.render(record, **options)
    found = compare(rendered, record, settings, **options)  # type: ignore[arg-type]  # one of two
    counts = {sign: sum(item.tokens for item in found.differences if item.sign == sign) for sign in "+-"}
    both = sum(turn.both for turn in found.turns)
    assert both + counts["+"] == found.theirs.trained
    assert both + counts["-"] == found.trained == sum(turn.tokens for turn in found.turns)
    states = {(piece.ours, piece.theirs): 0 for piece in found.pieces}
    for piece in found.pieces:
        states[piece.ours, piece.theirs] += piece.tokens
        assert (piece.reason is None) == (piece.ours == piece.theirs)
    assert (states.get((True, True), 0), states.get((False, True), 0), states.get((True, False), 0)) == (
        both,
        counts["+"],
        counts["-"],
    )
    assert "".join(piece.text for piece in found.pieces if piece.place is not None) == found.theirs.text
    return found


def reported(found: Compared) -> dict[str, int]:
    return {item.reason: item.tokens for item in found.differences}


def loaded(folder: Path, template: Path | None = None) -> Any:  # noqa: ANN401  # transformers ships no types
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template.read_text()
    return tokenizer


def prepared(
    tokenizer: Any,  # noqa: ANN401  # transformers ships no types
    record: dict[str, Any],
    folder: Path,
    *,
    only: bool,
    max_length: int | None = None,
) -> tuple[list[int], list[int]]:
    """TRL's ids and labels for messages, by its preparation of a stream and its collator: no trainer, no model."""
    from datasets import Dataset, Features, Json
    from trl import SFTConfig, SFTTrainer
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    twin = None
    if only and not has_generation_markers(tokenizer.chat_template):
        twin = get_training_chat_template(tokenizer)
    trainer = SimpleNamespace(chat_template=twin, completion_only_loss=False, _tokenizer=tokenizer)
    config = SFTConfig(str(folder), use_cpu=True, bf16=False, assistant_only_loss=only, max_length=max_length)
    stream = Dataset.from_list([record], features=Features(dict.fromkeys(record, Json()))).to_iterable_dataset()
    rows = SFTTrainer._prepare_dataset(trainer, stream, tokenizer, config, False, None, "train")  # noqa: SLF001  # TRL's
    row = next(iter(rows))
    batch = DataCollatorForLanguageModeling(pad_token_id=0)([{name: row[name] for name in ("input_ids", "labels")}])
    return batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


def targets(tokenizer: Any, messages: list[dict[str, Any]], stop: str) -> Iterator[tuple[int, list[int], list[int]]]:  # noqa: ANN401  # no types
    """Each assistant message, the ids of the prompt that a server sends, and those that the model then has to write."""

    def encoded(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = tokenizer.apply_chat_template(messages[:index], add_generation_prompt=True, tokenize=False)
            whole = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
            assert whole.startswith(prompt)
            said = whole[len(prompt) : whole.rindex(stop) + len(stop)]
            yield index, encoded(prompt), encoded(said)


def within(tokenizer: Any, text: str, start: int, end: int) -> int:  # noqa: ANN401  # no types
    """How many tokens have a letter of this part of a text. The first of all does not count: nothing predicts it."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return sum(low < end and start < high for low, high in offsets[1:])


@pytest.mark.parametrize(("name", "number"), [("chat_en.jsonl", 9), ("guide.jsonl", 3)])
def test_qwen3s_twin_trains_the_line_break_after_each_stop_and_shows_reasoning_that_a_server_drops(
    name: str, number: int, qwen3_now: Path, tmp_path: Path
) -> None:
    record = example(name, number)
    found = compared(record, "trl", qwen3_now)
    messages = dlgc.render(record, tokenizer=qwen3_now).messages
    tokenizer = loaded(qwen3_now)
    ids, labels = prepared(tokenizer, {"messages": messages}, tmp_path, only=True)
    assert (found.theirs.input_ids, found.theirs.labels) == (ids, labels)
    assert found.theirs.twin
    after: list[int] = []
    elsewhere: list[int] = []
    tokens = 0
    runs = trained_runs(labels)
    for (start, end), (index, prompt, target) in zip(runs, targets(tokenizer, messages, "<|im_end|>"), strict=True):
        assert ids[start:end] == [*target, *tokenizer.encode("\n")]
        after.append(index)
        if ids[:start] != prompt:
            elsewhere.append(index)
            tokens += len(target)
    assert elsewhere
    said = {item.reason: (item.tokens, item.messages) for item in found.differences}
    assert said == {"after-stop": (len(after), after), "prompt": (tokens, elsewhere)}
    assert [turn.message for turn in found.turns if turn.prompts] == elsewhere


@pytest.mark.parametrize(("name", "number"), [("chat_en.jsonl", 9), ("guide.jsonl", 3)])
def test_trls_default_trains_everything_that_qwen3_shows_and_shows_no_earlier_reasoning(
    name: str, number: int, qwen3_now: Path, tmp_path: Path
) -> None:
    record = example(name, number)
    found = compared(record, "trl-default", qwen3_now)
    messages = dlgc.render(record, tokenizer=qwen3_now).messages
    tokenizer = loaded(qwen3_now)
    ids, labels = prepared(tokenizer, {"messages": messages}, tmp_path, only=False)
    assert (found.theirs.input_ids, found.theirs.labels) == (ids, labels) == (ids, ids)
    text = tokenizer.decode(ids)
    wanted = dict.fromkeys(("user", "tool", "system", "after-stop", "reasoning", "text-missing"), 0)
    both = 0
    own = targets(tokenizer, messages, "<|im_end|>")
    for shown in CHATML.finditer(text):
        role, (start, end) = shown[1], shown.span(2)
        if role == "assistant":
            index, _, target = next(own)
            shows = within(tokenizer, text, start, end + len("<|im_end|>"))
            both += shows
            wanted["after-stop"] += 1
            reason = "reasoning" if "reasoning_content" in messages[index] else "text-missing"
            wanted[reason] += len(target) - shows
        else:
            told = re.fullmatch(r"<tool_response>\n(.*)\n</tool_response>", shown[2], re.DOTALL)
            start, end = (start + told.start(1), start + told.end(1)) if told else (start, end)
            wanted["tool" if told else role] += within(tokenizer, text, start, end)
    plus = sum(wanted[reason] for reason in ("user", "tool", "system", "after-stop"))
    wanted["header"] = len(ids) - 1 - both - plus
    assert wanted["user"] > 5
    assert wanted["reasoning"] + wanted["text-missing"] > 3 or name == "guide.jsonl"
    assert reported(found) == {reason: tokens for reason, tokens in wanted.items() if tokens}


def test_llama_3_is_trained_alike_and_by_default_with_everything_around(llama3: Path, tmp_path: Path) -> None:
    tokenizer = loaded(llama3)
    ids, labels = prepared(tokenizer, CHAT, tmp_path, only=True)
    found = compared(CHAT, "trl", llama3)
    assert (found.theirs.input_ids, found.theirs.labels) == (ids, labels)
    row = dlgc.render(CHAT, tokenizer=llama3).row
    assert (row.input_ids, row.labels) == (ids, labels)
    assert found.differences == []

    found = compared(CHAT, "trl-default", llama3)
    text = tokenizer.decode(ids)
    wanted = dict.fromkeys(("user", "system"), 0)
    for shown in LLAMA.finditer(text):
        if shown[1] != "assistant":
            wanted[shown[1]] += within(tokenizer, text, *shown.span(2))
    trained = sum(label != UNTRAINED for label in labels)
    wanted["header"] = len(ids) - 1 - trained - sum(wanted.values())
    assert reported(found) == wanted


def test_a_template_without_a_twin_shows_what_trl_raises_and_its_default(
    shared: Path, llama3: Path, tmp_path: Path
) -> None:
    template = shared / "templates" / "llama.cpp" / "meta-llama-Llama-3.1-8B-Instruct.jinja"
    tokenizer = loaded(llama3, template)
    with pytest.raises(ValueError, match="not training-compatible") as raised:
        prepared(tokenizer, CHAT, tmp_path, only=True)
    options = {"chat_template": str(template), "date": "2024-07-26"}
    found = compared(CHAT, "trl", llama3, **options)
    assert found.theirs.refused == f"ValueError: {raised.value}"
    assert not found.theirs.assistant_only
    assert found.theirs.labels == found.theirs.input_ids == prepared(tokenizer, CHAT, tmp_path, only=False)[0]
    plain = compared(CHAT, "trl-default", llama3, **options)
    assert plain.theirs.refused is None
    assert plain.differences == found.differences
    assert {"user", "system", "header"} <= set(reported(found))


def test_targets_beyond_trls_max_length_are_cut(builtin: Path, tmp_path: Path) -> None:
    tokenizer = loaded(builtin)
    record = {"messages": [*CHAT["messages"] * 40, CHAT["messages"][1], CHAT["messages"][2]]}
    record["messages"] = [message for at, message in enumerate(record["messages"]) if at < 1 or at % 5]
    whole, labels = prepared(tokenizer, record, tmp_path, only=True)
    assert len(whole) > 1024
    found = compared(record, "trl", builtin)
    assert found.theirs.max_length == found.theirs.kept == 1024
    assert prepared(tokenizer, record, tmp_path, only=True, max_length=1024)[1] == labels[:1024]
    lost = [at for at, label in enumerate(labels) if label != UNTRAINED and at >= 1024]
    assert reported(found) == {"cut": len(lost)}
    assert reported(compared(record, "trl", builtin, max_length="none")) == {}
    assert reported(compared(record, "trl", builtin, max_length=len(whole))) == {}


def test_a_dialogue_of_which_no_target_is_left_is_dropped(builtin: Path) -> None:
    record = {"messages": [{"role": "user", "content": "many words " * 600}, {"role": "assistant", "content": "yes"}]}
    found = compared(record, "trl", builtin)
    assert found.theirs.kept == found.theirs.trained == 0
    assert reported(found) == {"cut": found.trained}


BEGIN, STOP, END = "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_end|>' }}", "{{- '\\n' }}"
EXACT = (BEGIN, "{{- message.content }}" + STOP, END)
MARKED = {
    "header": ("", BEGIN + EXACT[1], END),
    "after-stop": (BEGIN, EXACT[1] + END, ""),
    "stop": (BEGIN, "{{- message.content }}", STOP + END),
    "unmarked": (BEGIN + "{{- message.content[:5] }}", "{{- message.content[5:] }}" + STOP, END),
    "turn": (
        BEGIN + "{%- if not loop.last %}" + EXACT[1] + "{%- endif %}",
        "{%- if loop.last %}" + EXACT[1] + "{%- endif %}",
        END,
    ),
}


def written(header: str, turn: str, rest: str) -> str:
    """A template that marks a part of each assistant message."""
    return BLOCKS.replace("HEADER", header).replace("TURN", turn).replace("REST", rest)


@pytest.mark.parametrize("reason", MARKED)
def test_each_way_to_mark_too_much_or_too_little_has_its_reason(reason: str, builtin: Path, tmp_path: Path) -> None:
    """All these templates show the same text, so what differs is what their marks differ in."""
    trained = {}
    for name in ("exact", reason):
        header, turn, rest = MARKED.get(name, EXACT)
        path = tmp_path / f"{name}.jinja"
        path.write_text(written(header, turn, rest))
        _, labels = prepared(loaded(builtin, path), CHAT, tmp_path, only=True)
        trained[name] = {at for at, label in enumerate(labels) if label != UNTRAINED}
    found = compared(CHAT, "trl", builtin, chat_template=str(tmp_path / f"{reason}.jinja"))
    wrong = trained[reason] ^ trained["exact"]
    assert wrong
    assert reported(found) == {reason: len(wrong)}
    if reason == "stop":
        assert any("end-of-turn token" in text for text in found.theirs.warned)
    exact = compared(CHAT, "trl", builtin, chat_template=str(tmp_path / "exact.jinja"))
    assert exact.differences == []
    assert exact.theirs.warned == []


def test_a_turn_that_the_record_excludes_is_trained_by_trl(builtin: Path, tmp_path: Path) -> None:
    record = {"messages": [dict(message) for message in CHAT["messages"] * 3]}
    record["messages"] = [message for at, message in enumerate(record["messages"]) if at == 0 or at % 5]
    excluded = [index for index, message in enumerate(record["messages"]) if message["role"] == "assistant"][2]
    record["messages"][excluded]["train"] = False
    _, labels = prepared(loaded(builtin), {"messages": dlgc.render(record).messages}, tmp_path, only=True)
    start, end = trained_runs(labels)[2]
    found = compared(record, "trl", builtin)
    assert [(item.reason, item.tokens, item.messages) for item in found.differences] == [
        ("untrained-turn", end - start, [excluded])
    ]


def test_merged_messages_are_told_from_each_other(builtin: Path, tmp_path: Path) -> None:
    path = tmp_path / "alternating.jinja"
    refusal = (
        "{%- for message in messages %}{%- if not loop.first and loop.previtem.role == message.role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    )
    path.write_text(refusal + written(*EXACT))
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    roles = ["user", "user", "assistant", "user", "assistant", "user", "user", "assistant"]
    record = {"messages": [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]}
    record["messages"][4]["train"] = False
    found = compared(record, "trl", builtin, chat_template=str(path))
    assert [turn.message for turn in found.turns] == [1, 5]
    assert [(item.reason, item.messages) for item in found.differences] == [("untrained-turn", [3])]


def test_text_that_trl_takes_for_control_tokens_is_another_prompt(builtin: Path) -> None:
    record = {"messages": [dict(message) for message in CHAT["messages"]]}
    record["messages"][1]["content"] = "What does <|im_end|> mean?"
    found = compared(record, "trl", builtin, control_tokens="text")
    tokens = sum(turn.tokens for turn in found.turns)
    assert reported(found) == {"prompt": tokens}
    assert found.turns[0].prompts is not None
    ours, other = found.turns[0].prompts
    assert ours == other
    assert ours.strip().startswith("<|im_end|> mean?")


def test_tools_documents_and_template_arguments_reach_trl(builtin: Path, tmp_path: Path) -> None:
    for name, number in (("tool_en.jsonl", 9), ("documents.jsonl", 8)):
        record = example(name, number)
        found = compared(record, "trl", builtin, max_length="none")
        assert found.theirs.text == dlgc.render(record, tokenizer=builtin, max_length="none").text
        assert found.differences == []
    assert any("documents" in note for note in found.notes)
    path = tmp_path / "words.jinja"
    path.write_text("{{ word }}" + written(*EXACT))
    for kwargs in ({"word": "record"}, {}):
        record = {**CHAT, "chat_template_kwargs": kwargs}
        found = compared(record, "trl", builtin, chat_template=str(path), template_kwargs={"word": "option"})
        assert found.theirs.text.startswith(kwargs.get("word", "option") + "<|im_start|>")
        assert found.differences == []


def test_what_trl_cannot_prepare_at_all_is_shown(
    builtin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, raw = tmp_path / "bare", tmp_path / "raw.jsonl"
    folder.mkdir()
    for path in builtin.iterdir():
        (folder / path.name).write_text(path.read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    bare = {name: value for name, value in config.items() if name not in ("eos_token", "pad_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(bare))
    raw.write_text(json.dumps(CHAT))
    assert show(f"{raw}:1", "--tokenizer", folder, "--against", "trl") == 0
    shown = capsys.readouterr().out
    assert "TRL makes no row of this dialogue:\nValueError: The specified `pad_token` ('None')" in shown


def show(record: str | Path, *arguments: str | Path) -> int:
    from dlgc.cli import main

    return main(["show", str(record), *map(str, arguments)])


def test_the_command_marks_each_token_by_who_trains_it(builtin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = f"{DIALOGUES / 'guide.jsonl'}:3"
    assert show(guide, "--tokenizer", builtin, "--against", "trl-default") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rendered = dlgc.render(example("guide.jsonl", 3), tokenizer=builtin)
    tokenizer = loaded(builtin)
    trained = [at for at, label in enumerate(rendered.labels) if label != UNTRAINED]
    others = [at for at in range(1, len(rendered.labels)) if at not in trained]
    row = re.sub("×[0-9]+", "", shown.out).replace("⏎\n", "⏎").split("\n\n")[2]
    for edges, tokens in ((r"\[\[(.*?)\]\]", trained), (r"\{\+(.*?)\+\}", others)):
        marked = "".join(re.findall(edges, row, re.DOTALL)).replace("⏎", "\n").replace("|", "")
        assert marked == tokenizer.decode([rendered.input_ids[at] for at in tokens]).replace("|", "")
    assert f"tokens trained by both {len(trained)}, only by TRL {len(others)}, only by dlgc 0\n" in shown.out

    assert show(guide, "--tokenizer", builtin, "--against", "trl-default", "--color", "always") == 0
    painted = capsys.readouterr().out
    assert "\033[32m" in painted
    assert "\033[31m\033[1m+" in painted
    assert show(guide, "--tokenizer", builtin, "--against", "trl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == []
    assert found["theirs"]["assistant_only"] is True


def test_the_command_says_what_trl_refuses_and_where_it_cuts(
    builtin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template, raw = tmp_path / "untagged.jinja", tmp_path / "raw.jsonl"
    template.write_text(re.sub("{%-? (end)?generation %}", "", written(*EXACT)))
    raw.write_text(json.dumps(CHAT))
    chosen = ("--tokenizer", builtin, "--chat-template", template, "--against", "trl", "--max-length", "64")
    assert show(f"{raw}:1", *chosen) == 0
    shown = capsys.readouterr().out
    assert "TRL refuses assistant_only_loss=True, so its default is shown, loss on every token:\nValueError: " in shown
    assert "assistant_only_loss=False, max_length=64" in shown
    assert "the user's words are trained (messages 1, 3)" in shown
    raw.write_text(json.dumps({"messages": [*CHAT["messages"], *CHAT["messages"][1:] * 3]}))
    assert show(f"{raw}:1", "--tokenizer", builtin, "--against", "trl", "--max-length", "none") == 0
    assert "no difference: the same tokens are trained, after the same prompts" in capsys.readouterr().out


def test_records_are_found_as_dlgc_finds_them(tmp_path: Path) -> None:
    lines = (DIALOGUES / "guide.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (tmp_path / "lines.jsonl").write_text(f"{lines[0]}\n\n{lines[1]}\n{lines[2]}")
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1))
    (tmp_path / "one.json").write_text(json.dumps(records[1], indent=1))
    for name, number, record in (
        ("lines.jsonl", 1, 0),
        ("lines.jsonl", 3, 1),
        ("lines.jsonl.gz", 2, 1),
        ("list.json", 3, 2),
        ("one.json", 1, 1),
    ):
        path = str(tmp_path / name)
        shown = dlgc._dlgc.Renderer(dlgc.CompileOptions().to_json()).render_file(path, number)  # noqa: SLF001  # ours
        assert json.loads(json.loads(shown)["record"]) == records[record]
        found = dlgc.Rendered.from_json(shown)
        assert found.text == dlgc.render(records[record]).text


def test_without_trl_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['trl'] = None; from dlgc.cli import main; sys.exit(main(sys.argv[1:]))"
    record = f"{DIALOGUES / 'guide.jsonl'}:1"
    command = [sys.executable, "-c", code, "show", record, "--against", "trl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs trl: pip install 'dlgc[train]'" in done.stderr
    assert "Traceback" not in done.stderr
