"""Targets against an oracle that is not ours: what transformers alone shows of each assistant turn (`oracle.py`)."""

from __future__ import annotations

import collections
import datetime as dt
import gzip
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from oracle import Case, Message, Oracle, Record, Survey, trained_runs
from test_conformance import TOOLS, assistant, records, result, system, user

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

UNSEEN = sorted((Path(__file__).parent / "fixtures" / "templates").glob("*.jinja"))

# Sets below shared/data that dlgc imports, and how many dialogues of each are taken. LLaMA-Factory's reasoning set has
# a format that dlgc does not import: its typed parts are put into native fields here.
SETS = {
    "tinker-conversations/conversations.jsonl": 18,
    "smile/smile.jsonl.zst": 12,
    "tau-bench/gpt-4o-airline.trials01.json.gz": 6,
    "llamafactory/glaive_toolcall_en_demo.json.gz": 18,
    "llamafactory/glaive_toolcall_zh_demo.json.gz": 18,
    "llamafactory/reason_tool_use_demo_50.jsonl.gz": 28,
}
# Each template meets one in so many of them, another share each: all with all would take half an hour.
SHARE = 10

# A turn may be left untrained, and a dialogue be refused, for these reasons only.
UNTRAINED_CODES = {"prompt-differs", "target-unproved", "no-stop-token"}
REFUSAL_CODES = UNTRAINED_CODES | {"template-refused", "field-lost", "control-token"}


def obeyed(survey: Survey, *laws: str) -> None:
    """Fails with the breaches of some laws, by template and with examples."""
    if found := survey.breaches(*laws):
        by_template = dict(collections.Counter(item.split()[1] for item in found))
        pytest.fail("\n".join([f"{len(found)} breaches: {by_template}", *found[:30]]), pytrace=False)


def load(path: Path, qwen3: Path, **more: str) -> _dlgc.Renderer:
    options = {
        **more,
        "tokenizer": str(qwen3),
        "chat_template": str(path),
        "max_length": "none",
        "date": dt.datetime.now().astimezone().date().isoformat(),
    }
    return _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())


@pytest.fixture(scope="module")
def tokenizer(qwen3: Path) -> Any:  # noqa: ANN401  # transformers ships no types
    return transformers.AutoTokenizer.from_pretrained(qwen3)


def templates(shared: Path) -> dict[str, Path]:
    """Real templates by their text, those that have TRL's names first: a twin of equal bytes counts once."""
    found: dict[str, Path] = {}
    for path in sorted((shared / "templates").glob("*/*.jinja"), key=lambda path: (path.parent.name != "trl", path)):
        found.setdefault(path.read_text(), path)
    return found


def twins(shared: Path) -> list[tuple[Path, Path]]:
    """TRL's patched templates, each with the one that it was made from."""
    patched = sorted((shared / "templates" / "trl").glob("*_training.jinja"))
    return [(path.with_name(path.name.replace("_training", "")), path) for path in patched]


def real_dialogues(shared: Path) -> list[tuple[str, Record]]:
    """About 100 real dialogues: of each set those with the smallest SHA-256."""
    found = []
    for name, count in SETS.items():
        digests = {hashlib.sha256(json.dumps(record).encode()).hexdigest(): record for record in read(shared, name)}
        found += [(f"{name.partition('/')[0]}-{digest[:8]}", digests[digest]) for digest in sorted(digests)[:count]]
    return found


def read(shared: Path, name: str) -> list[Record]:
    path = shared / "data" / name
    if path.suffix == ".zst":
        with pytest.importorskip("pyarrow").input_stream(str(path), compression="zstd") as source:
            return [json.loads(line) for line in source.read(1 << 20).split(b"\n")[:-1]]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    elements = json.loads(raw) if raw.startswith(b"[") else [json.loads(line) for line in raw.splitlines()]
    return [native(element) if "reason" in name else element for element in elements]


def native(element: Record) -> Record:
    """Typed parts (`reasoning`, `text`, `tool_call`) as fields of the message."""
    messages: list[Message] = []
    for message in element["messages"]:
        parts = collections.defaultdict(list)
        for part in message["content"]:
            parts[part["type"]].append(part["value"])
        made: Message = {"role": message["role"], "content": "".join(parts["text"])}
        if parts["reasoning"]:
            made["reasoning_content"] = "".join(parts["reasoning"])
        if parts["tool_call"]:
            made["tool_calls"] = [
                {"id": f"call{len(messages):04}{i}", "type": "function", "function": json.loads(call)}
                for i, call in enumerate(parts["tool_call"])
            ]
        if message["role"] == "tool":
            made["tool_call_id"] = f"call{len(messages) - 1:04}0"
        messages.append(made)
    return {"messages": messages, "tools": json.loads(element["tools"])}


@pytest.fixture(scope="module")
def bases() -> dict[str, list[Case]]:
    """For each template that TRL has patched: what dlgc made of the dialogues; the survey fills it."""
    return collections.defaultdict(list)


@pytest.fixture(scope="module")
def survey(shared: Path, qwen3: Path, tokenizer: Any, bases: dict[str, list[Case]]) -> Survey:  # noqa: ANN401  # no types
    """Every real template on the kinds of dialogue, and on its share of the real ones."""
    found, real = Survey(), real_dialogues(shared)
    kinds = [*records(), *((name, WILD[name]) for name in ("reasoning", "reasoning_calls"))]
    with_twin = {base.read_text() for base, _ in twins(shared)}
    for number, (source, path) in enumerate(templates(shared).items()):
        oracle, name = Oracle(tokenizer, source), f"{path.parent.name}/{path.stem}"
        try:
            ours = load(path, qwen3)
        except dlgc.TemplateError:
            found.refused["template, at load"].append(name)
            # A template that cannot show a question and an answer: transformers cannot either.
            if oracle.text([user("q"), assistant("a")], {}) is not None:
                found.wrong["text"].append(f"{name} was refused at load")
            continue
        found.counts["templates"] += 1
        for kind, record in [*kinds, *real[number % SHARE :: SHARE]]:
            case = found.examine(oracle, ours, f"{name} {kind}", record)
            if case and source in with_twin:
                bases[source].append(case)
    print(f"\n{len(real)} real dialogues, 1 in {SHARE} of them for each template; {len(kinds)} kinds for all")
    print(dict(found.counts))
    print({code: len(names) for code, names in found.refused.items()})
    return found


def test_text_is_that_of_transformers(survey: Survey) -> None:
    obeyed(survey, "text")
    assert set(", ".join(set(survey.refused) - {"by transformers alone", "template, at load"}).split(", ")) <= (
        REFUSAL_CODES
    )
    print(f"\nrefused by dlgc at load, and by transformers on a plain dialogue: {survey.refused['template, at load']}")
    assert survey.refused["by transformers alone"] == []
    assert survey.counts["dialogues rendered alike"] >= 0.8 * survey.counts["dialogues"]


def test_targets_are_what_transformers_shows_after_the_prompt(survey: Survey) -> None:
    counts = survey.counts
    print(f"\n{counts['targets equal']} targets equal the oracle's, of {counts['turns']} turns")
    print(f"the prefix holds for {counts['turns where the prefix holds']}; where it fails, ", end="")
    print(f"{counts['trained where the prefix fails']} are trained")
    obeyed(survey, "target", "once")
    assert counts["targets equal"] >= 0.75 * counts["turns"]


def test_targets_hold_what_the_assistant_said(survey: Survey) -> None:
    print(f"\n{survey.counts['strings']} strings in content, names and arguments of trained turns")
    obeyed(survey, "said")
    assert survey.counts["strings"] >= 5000


def test_few_turns_stay_untrained_and_each_for_a_reason(survey: Survey) -> None:
    counts, share = survey.counts, sum(survey.codes.values()) / survey.counts["turns"]
    print(f"\n{share:.1%} untrained: {dict(survey.codes)}, and {counts['turns without a prompt']} without a prompt")
    for reason, count in collections.Counter(
        f"{name.split()[0]} {re.sub('`.*?`', '`…`', reason.partition(', oracle ')[0])}"
        for name, _, reason in (item.partition(": ") for item in survey.untrained)
    ).most_common():
        print(f"  {count} {reason}")
    assert set(survey.codes) <= UNTRAINED_CODES
    assert share <= 0.02
    assert counts["untrained where the prefix holds"] <= 0.002 * counts["turns"]


def test_every_row_begins_with_the_servers_prompt(survey: Survey) -> None:
    obeyed(survey, "prompt")
    print(f"\n{survey.counts['turns alone in a row']} turns alone in a row, ", end="")
    print(f"{survey.counts['turns in a row with others']} with others")
    for kind, names in survey.templates.items():
        print(f"{len(names)} templates {kind}: {sorted(names)}")
    assert len(survey.templates["change earlier turns"]) >= 11
    assert len(survey.templates["open something in the prompt that the turn does not show"]) >= 14


def test_reasoning_is_trained_once_where_the_newest_turn_shows_it(survey: Survey) -> None:
    printed = survey.counts["reasoning printed"]
    print(f"\n{printed} reasoning texts; {survey.counts['reasoning that the template never prints']} never printed")
    obeyed(survey, "reasoning")
    assert printed >= 200


@pytest.mark.usefixtures("survey")
def test_patched_twins_mark_the_same_tokens(
    shared: Path,
    qwen3: Path,
    tokenizer: Any,  # noqa: ANN401  # no types
    bases: dict[str, list[Case]],
) -> None:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for base, twin in twins(shared):
        cases = bases[base.read_text()]
        counts["pairs"] += 1
        if not cases:
            counts["pairs whose base cannot be loaded"] += 1
            continue
        oracle, ours = Oracle(tokenizer, twin.read_text()), load(twin, qwen3, mask="template")
        whole = load(base, qwen3, target="template")
        for case in cases:
            counts["dialogues"] += 1
            patched = json.loads(ours.render(json.dumps(case.record, ensure_ascii=False).encode()))
            if (patched["text"], patched.get("messages")) != (case.found["text"], case.found["messages"]):
                continue
            counts["dialogues with equal texts"] += 1
            wrong += [f"{case.name}: {what}" for what in compare(oracle, case, patched, counts)]
            shown = json.loads(whole.render(json.dumps(case.record, ensure_ascii=False).encode()))
            wrong += [f"{case.name}: {what}" for what in compare_shown(oracle, case, shown, counts)]
    print(f"\n{dict(counts)}")
    assert not wrong, "\n".join([f"{len(wrong)} differ", *wrong[:24]])
    assert counts["dialogues with equal texts"] >= 0.5 * counts["dialogues"]
    assert counts["targets in a shared row"] >= 300
    assert counts["targets as shown"] >= 300
    assert counts["targets as shown that no prompt precedes"] >= 10


def compare(twin: Oracle, case: Case, patched: Record, counts: collections.Counter[str]) -> Iterator[str]:
    """What differs between the blocks that transformers tracks in the twin, and dlgc's labels with twin and base."""
    text, blocks = case.found["text"], twin.blocks(case.messages, case.around)
    encoded = twin.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]

    def inside(pieces: list[tuple[int, int]]) -> list[int]:
        """Labels of the tokens that lie wholly inside a piece of the text."""
        hit = [any(start <= first and last <= end for start, end in pieces) for first, last in offsets]
        return [token if trained else -100 for token, trained in zip(ids, hit, strict=True)]

    (row,) = patched["rows"]
    if row["input_ids"] != ids or row["labels"] != inside(blocks):
        yield "`--mask template` on the twin"
    turns = list(case.turns())
    if len(blocks) != len(turns):
        yield f"{len(blocks)} blocks for {len(turns)} turns"
        return
    shared_row = next((row for row in case.found["rows"] if row["input_ids"] == ids), {"trained_messages": []})
    targets = []
    for (place, turn), (start, end) in zip(turns, blocks, strict=True):
        prompt = case.shown(place, prompt=True)
        if "code" in turn or prompt is None or not text.startswith(prompt):
            continue
        # The block less the header that the generation prompt supplies, and less the white space after the stop.
        counts["headers inside a block"] += start < len(prompt)
        counts["white space after a stop inside a block"] += text[start:end] != text[start:end].rstrip()
        target = (max(start, len(prompt)), start + len(text[start:end].rstrip()))
        newest = case.shown(place + 1) or ""
        if newest.startswith(prompt) and text[len(prompt) :].startswith(case.tail(place, len(prompt))):
            counts["targets in the whole text"] += 1
            if turn["target"] != text[slice(*target)]:
                yield f"message {place}: {turn['target']!r}, twin {text[slice(*target)]!r}"
        if turn["message"] in shared_row["trained_messages"]:
            counts["targets in a shared row"] += 1
            targets.append(target)
    if targets and shared_row["labels"] != inside(targets):
        yield "`exact` on the base"


def compare_shown(twin: Oracle, case: Case, shown: Record, counts: collections.Counter[str]) -> Iterator[str]:
    """What differs between a twin's blocks and the labels with `--target template` on the base, all in one row."""
    text, blocks = case.found["text"], twin.blocks(case.messages, case.around)
    encoded = twin.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    trained = [turn for turn in shown.get("turns", []) if "code" not in turn]
    counts["turns not shown to their stop"] += len(blocks) - len(trained)
    if not trained:
        return
    (row,) = shown["rows"]
    if row["input_ids"] != encoded["input_ids"]:
        yield "`--target template` has other ids than the whole rendering"
    runs = dict(zip(row["trained_messages"], trained_runs(row["labels"]), strict=True))
    differing = sum(found["code"] == "target-differs" for found in shown["diagnostics"])
    for (place, turn), (start, end) in zip(case.turns(), blocks, strict=True):
        if turn["message"] not in runs:
            continue
        first, last = runs[turn["message"]]
        begins, ends = encoded["offset_mapping"][first][0], encoded["offset_mapping"][last - 1][1]
        prompt, before = case.shown(place, prompt=True) or "", case.shown(place) or ""
        counts["targets as shown"] += 1
        # All of the block but what the generation prompt supplies of it, and the white space after the stop.
        left_out = text[start:begins] if start < begins else ""
        if text[start:end].rstrip() != left_out + text[max(start, begins) : ends]:
            yield f"message {place}: {text[begins:ends]!r} of the block {text[start:end]!r}"
        if text.startswith(prompt):
            due = max(start, len(prompt))
            cut = all(first != due for first, _ in encoded["offset_mapping"])
            counts["targets as shown that begin inside a token"] += cut
            if begins != min(first for first, _ in encoded["offset_mapping"] if first >= due):
                yield f"message {place} begins with {text[begins:ends]!r:.100} after its prompt"
        else:
            counts["targets as shown that no prompt precedes"] += 1
            if left_out not in prompt[len(os.path.commonprefix([before, prompt])) :]:  # noqa: RUF071  # letters are meant
                yield f"message {place}: {left_out!r} is left out and no part of the prompt"
            differing -= 1
    if differing < 0:
        yield "a turn without its prompt before it is not counted as `target-differs`"


@pytest.mark.parametrize("path", UNSEEN, ids=[path.stem for path in UNSEEN])
def test_unseen_templates_obey_the_law(path: Path, qwen3: Path, tokenizer: Any) -> None:  # noqa: ANN401  # no types
    found, oracle, ours = Survey(), Oracle(tokenizer, path.read_text()), load(path, qwen3)
    for name, record in WILD.items():
        found.examine(oracle, ours, f"{path.stem} {name}", record)
    counts, untrained = found.counts, sum(found.codes.values())
    refused = {code: [name.split()[1] for name in names] for code, names in found.refused.items()}
    print(f"\n{counts['targets equal']} targets equal of {counts['turns']}, refused: {refused}, untrained:")
    print("\n".join(found.untrained))
    obeyed(found)
    assert set(", ".join(refused).split(", ")) - {""} <= REFUSAL_CODES, refused
    assert set(found.codes) <= UNTRAINED_CODES
    assert counts["turns"] - untrained >= 70


def test_a_call_that_only_its_id_names_is_trained(qwen3: Path, tokenizer: Any) -> None:  # noqa: ANN401  # no types
    path = next(path for path in UNSEEN if path.stem == "kimi_k2")
    call = asking({"from": "x"})
    call["tool_calls"][0]["id"] = "functions.get_fare:0"
    answer = {"role": "tool", "tool_call_id": "functions.get_fare:0", "content": "128"}
    record = {"messages": [user("fare?"), call, answer, assistant("It is 128.")], "tools": TOOLS}
    found, oracle = Survey(), Oracle(tokenizer, path.read_text())
    found.examine(oracle, load(path, qwen3), "kimi_k2 named", record)
    obeyed(found)
    assert (found.counts["targets equal"], found.untrained, dict(found.refused)) == (2, [], {})


def talk(*said: str, **more: object) -> Record:
    """User and assistant in turns."""
    return {"messages": [(assistant if i % 2 else user)(text) for i, text in enumerate(said)], **more}


def asking(arguments: object, number: int = 0, **more: object) -> Message:
    function = {"name": "get_fare", "arguments": arguments}
    return assistant("", tool_calls=[{"id": f"call{number:05}", "type": "function", "function": function}], **more)


BOTH = [call for number in (0, 1) for call in asking({"from": "ab"[number]}, number)["tool_calls"]]
# Dialogues that are hard on a template, on a proof by words, or on a tokenizer.
WILD: dict[str, Record] = {
    "plain": talk("q1", "a1", "q2", "a2"),
    "system": {"messages": [system("be kind"), user("q1"), assistant("a1"), user("q2"), assistant("a2")]},
    "japanese": talk("ｶﾀｶﾅと\u3000漢字、カ\u3099は？", "「ガ」です。\u3000\n〜終わり〜", "㍿と𠮷", "はい。"),
    "arabic": talk(
        "مَرْحَبًا\u200f! \u202bكيف\u202c حالك؟",
        "شَدَّة \u0651\u064e ثم \u064e\u0651، ـــ",
        "لا",
        "نعم \u200e123\u200f.",
    ),
    "emoji": talk(
        "👩🏽\u200d💻🏳️\u200d🌈",
        "👨\u200d👩\u200d👧\u200d👦👨\u200d👩\u200d👧\u200d👦🇯🇵🇯🇵❤️",
        "🧑\U0001f3ff",
        "\ufe0f\u200d🌈",
    ),
    "combining": talk(
        "e\u0301", "\u0301 first", "a\u0323\u0307 \u1112\u1161\u11ab \u212b", "\u0338=\u0338> o\u0308\u0304"
    ),
    "invisible": talk("\u200b\ufeffq\u00ad", "\ufeffa\u200b", "\u0000\u0007\u001b[0m", "\u2028a\u2029\u0085"),
    "template_text": talk(
        "{{ messages }}", "{% endfor %}", "{# x #} {%- if true -%}", "{{ raise_exception('no') }} {% endgeneration %}"
    ),
    "headers": talk(
        "\nassistant\n",
        "### Response:",
        "ASSISTANT: yes\n\nUSER: no</s>",
        "\nassistant\n### Instruction:\n[/INST]",
        "User: x\n\nFalcon: y",
        "<|assistant|>\n<|user|> [|assistant|] GPT4 Correct Assistant:",
    ),
    "said_stops": talk(
        "stops?",
        "It is [|endofturn|], </s>, <|end|>, [e~[ or <|eom|> here.",
        "more",
        "<|END_OF_TURN_TOKEN|><|end_of_turn|>",
    ),
    "substrings": talk("abc", "b", "bc", "abcabc", "b", "abc", "a", "a", "abca", "ab"),
    "roles": talk("assistant", "user", "user", "assistant", "system", "tool", "model", "system"),
    "empty_user": talk("", "a1", "   ", "a2", "\n", "a3"),
    "empty_turns": talk("q1", "", "q2", "   ", "q3", "\n\n", "q4", "a4"),
    "white_space": talk(" q1\n", "\n  a1 \n\n", "\tq2 ", "  a2\n", "q3", "\n\na3  "),
    "half_stops": talk(
        "q <|im_", "a <|im_", "<", "<|im_end", "</", "x [|endof", "|>", "half </s", "]", "a [e~", "<|", "<|END_OF_TURN"
    ),
    "long_word": talk("x" * 3000, "ß" * 1500 + "終" * 500, "-" * 700, "=" * 999),
    "line_ends": talk("one\r\ntwo\r\n", "a\r\nb\r\n\r\n\r\nc\r", "\r", "\r\n\r\nd"),
    "json": talk(
        '{"role": "assistant", "content": "x"}', '{"a": "b\\n\\"c\\""}\\', "<b>&amp;</b> 'q'", "```json\n[]\n```"
    ),
    "tags": talk(
        "<b>", "<b>x</b> <b>x</b> <y/>", "</answer>", "<answer>\ny\n</answer>", "<a><a>", "so <x> it < y > is<"
    ),
    "words": talk("Qz7m1n0Zq Qa1 question", "Qz7m0n0Zq", "Ab2 answer Xd4", "<Qz7m3n0Zq> Qz7", "Rc3", "Qz7m5n0Zq</Qz7>"),
    "think_tags": talk("q1", "<think>\nhm\n</think>\n\na1", "q2", "no more </think> thinking", "q3", "a3"),
    "many": talk(*["yes", "no", "yes", "yes"] * 6),
    "asst_first": {"messages": [assistant("a0"), user("q1"), assistant("a1")]},
    "uu_aa": {"messages": [user("q1"), user("q1b"), assistant("a1"), assistant("a1"), user("q2"), assistant("a2")]},
    "mid_system": {"messages": [user("q1"), assistant("a1"), system("mid"), user("q2"), assistant("a2")]},
    "no_thinking": talk("q1", "a1", "q2", "a2", chat_template_kwargs={"enable_thinking": False, "thinking": True}),
    "documents": talk("q1", "a1", documents=[{"title": "T1", "text": "first text"}, {"title": "T2", "text": "second"}]),
    "tools_unused": talk("q1", "a1", tools=TOOLS),
    "calls": {
        "messages": [
            user("fare?"),
            asking({"from": "重庆 {{ x }}", "to": 'a"b\\n', "n": [1, {"y": None}], "é": True}),
            result(),
            assistant("128"),
            user("again get_fare"),
            asking({}),
            result(),
            assistant("128"),
        ],
        "tools": TOOLS,
    },
    "calls_as_text": {
        "messages": [user("fare?"), asking('{"from":"重庆", "n":2.50}'), result(), assistant("get_fare")],
        "tools": TOOLS,
    },
    "parallel": {
        "messages": [user("fares?"), assistant("Both.", tool_calls=BOTH), result(), result(1), assistant("done")],
        "tools": TOOLS,
    },
    "reasoning": {
        "messages": [
            user("q1"),
            assistant("a1", reasoning_content="first reasoning\n\nin two parts"),
            user("q2"),
            assistant("a2", reasoning_content="second reasoning"),
            user("q3"),
            assistant("a3, without it"),
        ]
    },
    "reasoning_calls": {
        "messages": [
            user("q1"),
            asking({"from": "x"}, reasoning_content="reasoning before the call"),
            result(),
            assistant("a1", reasoning_content="reasoning after the call"),
            user("q2"),
            asking({"from": "y"}, reasoning_content="reasoning of another exchange"),
            result(),
            assistant("a2", reasoning_content="the last reasoning of all"),
        ],
        "tools": TOOLS,
    },
}
