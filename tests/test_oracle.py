"""Targets against an oracle that is not ours: what transformers alone shows of each assistant turn.

T is transformers' `apply_chat_template` on the messages that were handed to the template. The prompt of message i is
T(messages[:i], add_generation_prompt=True); where T(messages[:i+1]) begins with it, the rest, up to the stop, is the
target. How dlgc finds a target plays no part here. What goes against a law is collected, so that one run shows all.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import gzip
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_conformance import TOOLS, Message, assistant, records, result, system, trained_runs, user

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

Record = dict[str, Any]
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

MARK = "Xq9"
TAG = re.compile(r"<[^<>\s]+>")
SPECIAL_TAG = re.compile(r"<[|｜][^<>\s]+[|｜]>$")


@dataclass(frozen=True)
class Oracle:
    """What transformers says of one template."""

    tokenizer: Any
    source: str
    _ends: dict[tuple[object, ...], tuple[str, str] | None] = field(default_factory=dict)

    def text(self, messages: list[Message], around: Record, *, prompt: bool = False) -> str | None:
        """T(messages); None where the template, or transformers, refuses them."""
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=self.source, add_generation_prompt=prompt, **around
            )
        except Exception:  # noqa: BLE001  # a template may raise anything
            return None
        return text

    def blocks(self, messages: list[Message], around: Record) -> list[tuple[int, int]]:
        """Characters that the template's `{% generation %}` blocks mark, as transformers tracks them."""
        from transformers.utils.chat_template_utils import render_jinja_template

        _, (blocks,) = render_jinja_template(
            [messages],
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **around},
        )
        return list(blocks)

    def ids(self, text: str) -> list[int]:
        """As `apply_chat_template` encodes what it rendered."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Their text, special tokens and all."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def normal(self, text: str) -> str:
        """The text as this tokenizer gives it back: Qwen's composes characters before it encodes."""
        return self.decode(self.ids(text))

    def cut(self, shown: str, messages: list[Message], around: Record) -> str:
        """The end of a rendering, cut after the stop of the last turn; the model's own where none is printed."""
        turn = messages[-1]
        calls = turn.get("tool_calls") or []
        form = type(calls[0]["function"]["arguments"]) if calls else None
        key = (form, "reasoning_content" in turn, bool(around.get("tools")))
        end = self._ends.get(key)
        if end is None or not shown.endswith("".join(end)):
            end = self._ends[key] = self.end(messages, around)
        assert end is not None, "the end of a turn cannot be learnt"
        stop, rest = end
        assert shown.endswith(stop + rest), f"{shown!r} does not end in {stop + rest!r}"
        return shown[: len(shown) - len(rest)] + ("" if stop else self.tokenizer.eos_token)

    def end(self, messages: list[Message], around: Record) -> tuple[str, str] | None:
        """The stop of the last turn and what the template prints after it; an empty stop where it prints none.

        Both are learnt from a turn that says a mark in the same place.
        """
        *before, turn = messages
        return (self._call_end if turn.get("tool_calls") else self._plain_end)(before, turn, around)

    def _plain_end(self, before: list[Message], turn: Message, around: Record) -> tuple[str, str] | None:
        """What follows a mark: the model's own stop if it is there, else the first tag, else all but white space."""
        in_parts = any(isinstance(message.get("content"), list) for message in before)
        said: object = [{"type": "text", "text": MARK}] if in_parts else MARK
        shown = self.text([*before, {**turn, "content": said}], around)
        if shown is None or MARK not in shown:
            return None
        after = shown.rsplit(MARK, 1)[1]
        own = self.tokenizer.eos_token
        if own in after:
            return own, after.partition(own)[2]
        tag = TAG.search(after)
        stop = tag.group() if tag else after.strip()
        return stop, after[after.index(stop) + len(stop) :] if stop else after

    def _call_end(self, before: list[Message], turn: Message, around: Record) -> tuple[str, str] | None:
        """How calls with different arguments end alike: the plain stop if that is there, else a special tag."""
        shown = []
        for arguments in ({"a": MARK}, {"b": 7}):
            call = json.loads(json.dumps(turn["tool_calls"][-1]))
            is_text = isinstance(call["function"]["arguments"], str)
            call["function"]["arguments"] = json.dumps(arguments) if is_text else arguments
            shown.append(self.text([*before, {**turn, "tool_calls": [call]}], around))
        if None in shown:
            return None
        after = os.path.commonprefix([text[::-1] for text in shown if text])[::-1]  # noqa: RUF071  # letters are meant
        plain = self._plain_end(before, assistant(MARK), around)
        if plain and plain[0] and plain[0] in after:
            return plain[0], after.rpartition(plain[0])[2]
        special = SPECIAL_TAG.search(after.rstrip())
        white = after[len(after.rstrip()) :]
        return (special.group(), white) if special else ("", white)


def leaves(turn: Message) -> Iterator[str]:
    """The strings of an assistant message, but for reasoning, which a template may drop."""
    content = turn.get("content") or ""
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    yield text.rsplit("</think>", 1)[-1].strip()
    for call in turn.get("tool_calls") or []:
        yield call["function"]["name"]
        arguments = call["function"]["arguments"]
        yield from strings(json.loads(arguments) if isinstance(arguments, str) else arguments)


def thought(turn: Message) -> str:
    """What an assistant message reasons, in its own field or between tags."""
    content = turn.get("content") or ""
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    tagged = text.partition("</think>")[0].rpartition("<think>")[2] if "</think>" in text else ""
    return str(turn.get("reasoning_content") or tagged).strip()


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@dataclass(frozen=True)
class Case:
    """A dialogue with a template: what dlgc made of it, and what transformers shows of each turn."""

    oracle: Oracle
    name: str
    record: Record
    found: Record
    _shown: dict[tuple[int, bool], str | None] = field(default_factory=dict)

    @functools.cached_property
    def messages(self) -> list[Message]:
        """As they were handed to the template."""
        messages: list[Message] = json.loads(self.found["messages"])
        return messages

    @functools.cached_property
    def around(self) -> Record:
        """Tools, documents and template arguments as dlgc hands them over: tools as a list, each in its wrapper."""
        around = {key: self.record[key] for key in ("tools", "documents") if self.record.get(key)}
        if isinstance(around.get("tools"), str):
            around["tools"] = json.loads(around["tools"]) or None
        if around.get("tools"):
            around["tools"] = [
                tool if "function" in tool or "type" in tool else {"type": "function", "function": tool}
                for tool in around["tools"]
            ]
        return around | self.record.get("chat_template_kwargs", {})

    def turns(self) -> Iterator[tuple[int, Record]]:
        """Each assistant message's place in `messages`, and dlgc's verdict; merged messages are one turn."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        yield from zip(places, self.found["turns"], strict=True)

    def shown(self, count: int, *, prompt: bool = False) -> str | None:
        """T of the first messages."""
        if (count, prompt) not in self._shown:
            self._shown[count, prompt] = self.oracle.text(self.messages[:count], self.around, prompt=prompt)
        return self._shown[count, prompt]

    def tail(self, place: int, start: int = 0) -> str:
        """The rendering of a message as the newest one, from a character on, cut after the stop."""
        newest = self.shown(place + 1)
        assert newest is not None, self.name
        return self.oracle.cut(newest[start:], self.messages[: place + 1], self.around)


@dataclass
class Survey:
    """Counts over many dialogues, and everything that went against a law.

    Attributes:
        counts: What was seen, by kind.
        codes: Untrained turns by code, where a prompt exists.
        untrained: The same turns, each with its reason.
        refused: Dialogues that were refused, by code.
        templates: Templates, by what they do to earlier turns or to the prompt.
        wrong: Breaches, by law.
    """

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    untrained: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))
    templates: dict[str, set[str]] = field(default_factory=lambda: collections.defaultdict(set))
    wrong: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))

    def examine(self, oracle: Oracle, ours: _dlgc.Renderer, name: str, record: Record) -> Case | None:
        """Holds one dialogue with one template against the oracle, if both sides render it."""
        found: Record = json.loads(ours.render(json.dumps(record, ensure_ascii=False).encode()))
        self.counts["dialogues"] += 1
        if found["text"] is None:
            codes = sorted({item["code"] for item in found["diagnostics"] if item["severity"] == "error"})
            self.refused[", ".join(codes)].append(name)
            # What transformers renders as it stands in the record, no template refuses.
            bare = Case(oracle, name, record, {"messages": json.dumps(record.get("messages", []))})
            if codes == ["template-refused"] and bare.shown(len(bare.messages)) is not None:
                self.wrong["text"].append(f"{name}: template-refused")
            return None
        case = Case(oracle, name, record, found)
        theirs = case.shown(len(case.messages))
        if theirs is None:
            self.refused["by transformers alone"].append(name)
            return None
        if theirs != found["text"]:
            self.wrong["text"].append(name)
            return None
        self.counts["dialogues rendered alike"] += 1
        trained = [message for row in found["rows"] for message in row["trained_messages"]]
        if sorted(trained) != sorted(turn["message"] for turn in found["turns"] if "code" not in turn):
            self.wrong["once"].append(f"{name}: {trained}")
            return None
        runs = {
            message: (row, start, oracle.decode(row["input_ids"][start:end]))
            for row in found["rows"]
            for message, (start, end) in zip(row["trained_messages"], trained_runs(row["labels"]), strict=True)
        }
        said = {}
        for place, turn in case.turns():
            self.turn(case, place, turn, *runs.get(turn["message"], ({}, 0, "")))
            if "code" not in turn:
                said[place] = runs[turn["message"]][2]
        self.reasoning(case, said)
        return case

    def turn(self, case: Case, place: int, turn: Record, row: Record, start: int, run: str) -> None:  # noqa: PLR0913, PLR0917  # a turn and where it is trained
        """Holds one turn against the oracle."""
        where, prompt = f"{case.name} message {place}", case.shown(place, prompt=True)
        if prompt is None:
            self.counts["turns without a prompt"] += 1
            if turn.get("code") != "prompt-differs":
                self.wrong["target"].append(f"{where}: trained without a prompt")
            return
        self.counts["turns"] += 1
        holds = (case.shown(place + 1) or "").startswith(prompt)
        self.counts["turns where the prefix holds"] += holds
        expected = case.tail(place, len(prompt)) if holds else None
        self.habits(case, place)
        if "code" in turn:
            self.codes[turn["code"]] += 1
            self.counts["untrained where the prefix holds"] += holds
            self.untrained.append(f"{where}: {turn['code']}: {turn['reason']}, oracle {expected!r:.200}")
            return
        self.counts["turns alone in a row" if len(row["trained_messages"]) == 1 else "turns in a row with others"] += 1
        if row["input_ids"][:start] != case.oracle.ids(prompt):
            self.wrong["prompt"].append(where)
        self.target(case, place, turn["target"], expected)
        if run != case.oracle.normal(turn["target"]):
            self.wrong["target"].append(f"{where}: ids say {run!r:.200}, the text {turn['target']!r:.200}")

    def habits(self, case: Case, place: int) -> None:
        """Notes what the template does to earlier turns, and in the prompt of this one."""
        template, _, _ = case.name.partition(" ")
        before, newest = case.shown(place) or "", case.shown(place + 1) or ""
        prompt = case.shown(place, prompt=True) or ""
        if newest.startswith(before) and not newest.startswith(prompt):
            self.templates["open something in the prompt that the turn does not show"].add(template)
        own = case.oracle.tokenizer.eos_token
        later = case.shown(len(case.messages)) or ""
        if not later.startswith(newest.rstrip().removesuffix(own).rstrip()):
            self.templates["change earlier turns"].add(template)

    def target(self, case: Case, place: int, target: str, expected: str | None) -> None:
        """The target is the oracle's, or where that has none, how the newest turn ends; it holds what was said."""
        where = f"{case.name} message {place}"
        if expected is None:
            self.counts["trained where the prefix fails"] += 1
            if not case.tail(place).endswith(target):
                self.wrong["target"].append(f"{where}: the newest turn does not end in {target!r:.200}")
        elif target == expected:
            self.counts["targets equal"] += 1
        else:
            self.wrong["target"].append(f"{where}: {target!r:.200}, oracle {expected!r:.200}")
        for leaf in leaves(case.messages[place]):
            self.counts["strings"] += 1
            forms = (leaf, json.dumps(leaf, ensure_ascii=False)[1:-1], json.dumps(leaf)[1:-1], repr(leaf)[1:-1])
            if not any(form in target for form in forms):
                self.wrong["said"].append(f"{where}: {leaf!r:.100} does not stand in {target!r:.200}")
        for call in case.messages[place].get("tool_calls") or []:
            text = call["function"]["arguments"]
            if isinstance(text, str) and json.dumps(text, ensure_ascii=False) in target:
                as_object = {**call, "function": {**call["function"], "arguments": json.loads(text)}}
                turn = {**case.messages[place], "tool_calls": [as_object]}
                shown = case.oracle.text([*case.messages[:place], turn], case.around)
                if shown and json.dumps(json.loads(text), ensure_ascii=False) in shown:
                    self.wrong["said"].append(f"{where}: arguments encoded twice in {target!r:.200}")

    def reasoning(self, case: Case, said: dict[int, str]) -> None:
        """A reasoning text stands in its own target and no other, if the newest rendering prints it; else a warning."""
        lost = 0
        for place in said:
            text = thought(case.messages[place])
            printed = text in (case.shown(place + 1) or "")
            lost += not printed
            if len(text) < len("reasoning"):
                continue
            holders = [other for other, run in said.items() for _ in range(run.count(case.oracle.normal(text)))]
            self.counts["reasoning printed" if printed else "reasoning that the template never prints"] += 1
            if holders != [place] * printed:
                self.wrong["reasoning"].append(f"{case.name} message {place}: in {holders}, printed: {printed}")
        warnings = sum(item["code"] == "reasoning-lost" for item in case.found["diagnostics"])
        if warnings != lost:
            self.wrong["reasoning"].append(f"{case.name}: {warnings} warnings, {lost} reasoning texts lost")

    def obeyed(self, *laws: str) -> None:
        """Fails with the breaches of some laws, by template and with examples."""
        found = [f"{law}: {item}" for law in laws for item in self.wrong[law]]
        if found:
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
    survey.obeyed("text")
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
    survey.obeyed("target", "once")
    assert counts["targets equal"] >= 0.75 * counts["turns"]


def test_targets_hold_what_the_assistant_said(survey: Survey) -> None:
    print(f"\n{survey.counts['strings']} strings in content, names and arguments of trained turns")
    survey.obeyed("said")
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
    survey.obeyed("prompt")
    print(f"\n{survey.counts['turns alone in a row']} turns alone in a row, ", end="")
    print(f"{survey.counts['turns in a row with others']} with others")
    for kind, names in survey.templates.items():
        print(f"{len(names)} templates {kind}: {sorted(names)}")
    assert len(survey.templates["change earlier turns"]) >= 11
    assert len(survey.templates["open something in the prompt that the turn does not show"]) >= 14


def test_reasoning_is_trained_once_where_the_newest_turn_shows_it(survey: Survey) -> None:
    printed = survey.counts["reasoning printed"]
    print(f"\n{printed} reasoning texts; {survey.counts['reasoning that the template never prints']} never printed")
    survey.obeyed("reasoning")
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
    found.obeyed(*found.wrong)
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
    found.obeyed(*found.wrong)
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
