"""What transformers alone shows of each assistant turn, and the laws that dlgc's targets are held against.

T is transformers' `apply_chat_template` on the messages that were handed to the template. The prompt of message i is
T(messages[:i], add_generation_prompt=True); where T(messages[:i+1]) begins with it, the rest, up to the stop, is the
target. How dlgc finds a target plays no part here. What goes against a law is collected, so that one run shows all.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlgc import _dlgc

Message = dict[str, Any]
Record = dict[str, Any]

MARK = "Xq9"
TAG = re.compile(r"<[^<>\s]+>")
SPECIAL_TAG = re.compile(r"<[|\uff5c][^<>\s]+[|\uff5c]>$")
UNTRAINED = -100


class UnsureError(Exception):
    """How a turn ends cannot be learnt from the template alone."""


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
        if end is None:
            raise UnsureError("the end of a turn cannot be learnt")
        stop, rest = end
        if not shown.endswith(stop + rest):
            raise UnsureError(f"{shown!r} does not end in {stop + rest!r}")
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
        plain = self._plain_end(before, {"role": "assistant", "content": MARK}, around)
        if plain and plain[0] and plain[0] in after:
            return plain[0], after.rpartition(plain[0])[2]
        special = SPECIAL_TAG.search(after.rstrip())
        white = after[len(after.rstrip()) :]
        return (special.group(), white) if special else ("", white)


def trimmed(messages: list[Message]) -> list[Message]:
    """Messages up to the last of the assistant: what follows is no part of any turn."""
    last = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[: last + 1]


def leaves(turn: Message) -> Iterator[str]:
    """The strings of an assistant message, but for reasoning, which a template may drop."""
    content = turn.get("content") or ""
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    # A template that parses reasoning out of content drops its opening tag even where no closing one follows.
    yield from (part.strip() for part in text.rsplit("</think>", 1)[-1].split("<think>"))
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
        arguments: Record = self.record.get("chat_template_kwargs", {})
        return around | arguments

    def turns(self) -> Iterator[tuple[int, Record]]:
        """The place in `messages` of each turn to be trained, and dlgc's verdict; merged messages are one turn."""
        turns = self.found["turns"]
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        if len(places) != len(turns):
            if len(self.messages) < len(trimmed(self.record["messages"])):
                raise UnsureError("which turn is which, where some are merged and some excluded")
            places = [turn["message"] for turn in turns]
        yield from zip(places, turns, strict=True)

    def shown(self, count: int, *, prompt: bool = False) -> str | None:
        """T of the first messages."""
        if (count, prompt) not in self._shown:
            self._shown[count, prompt] = self.oracle.text(self.messages[:count], self.around, prompt=prompt)
        return self._shown[count, prompt]

    def is_taken(self) -> bool:
        """Whether transformers renders it, and the prompt of a turn of it."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        return self.shown(len(self.messages)) is not None and any(self.shown(place, prompt=True) for place in places)

    def tail(self, place: int, start: int = 0) -> str:
        """The rendering of a message as the newest one, from a character on, cut after the stop."""
        newest = self.shown(place + 1)
        if newest is None:
            raise UnsureError(self.name)
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
        exact_space: Whether white space inside what was said must be as it was; some templates change it.
    """

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    untrained: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))
    templates: dict[str, set[str]] = field(default_factory=lambda: collections.defaultdict(set))
    wrong: dict[str, list[str]] = field(default_factory=lambda: collections.defaultdict(list))
    exact_space: bool = True

    def plain(self, text: str) -> str:
        """A text as it is compared: without white space and SentencePiece's sign for it, unless that must be equal."""
        return text if self.exact_space else "".join(text.replace("\u2581", "").split())

    def examine(self, oracle: Oracle, ours: _dlgc.Renderer, name: str, record: Record) -> Case | None:
        """Holds one dialogue with one template against the oracle, if both sides render it."""
        found: Record = json.loads(ours.render(json.dumps(record, ensure_ascii=False).encode()))
        self.counts["dialogues"] += 1
        if found["text"] is None:
            codes = sorted({item["code"] for item in found["diagnostics"] if item["severity"] == "error"})
            self.refused[", ".join(codes)].append(name)
            # What transformers renders as it stands in the record, no template refuses.
            bare = Case(oracle, name, record, {"messages": json.dumps(record.get("messages", []))})
            if codes == ["template-refused"] and bare.is_taken():
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
        if any(len(trained_runs(row["labels"])) != len(row["trained_messages"]) for row in found["rows"]):
            self.wrong["once"].append(f"{name}: as many runs of trained tokens as turns")
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
            if turn.get("code") not in ("prompt-differs", "template-refused"):
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
        if self.plain(run) != self.plain(case.oracle.normal(turn["target"])):
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
            if not any(self.plain(form) in self.plain(target) for form in forms):
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
            due = self.plain(case.oracle.normal(text))
            holders = [other for other, run in said.items() for _ in range(self.plain(run).count(due))]
            self.counts["reasoning printed" if printed else "reasoning that the template never prints"] += 1
            if holders != [place] * printed:
                self.wrong["reasoning"].append(f"{case.name} message {place}: in {holders}, printed: {printed}")
        warnings = sum(item["code"] == "reasoning-lost" for item in case.found["diagnostics"])
        if warnings != lost:
            self.wrong["reasoning"].append(f"{case.name}: {warnings} warnings, {lost} reasoning texts lost")

    def breaches(self, *laws: str) -> list[str]:
        """What went against some laws, or against any."""
        return [f"{law}: {item}" for law in laws or self.wrong for item in self.wrong[law]]


def trained_runs(labels: list[int]) -> list[tuple[int, int]]:
    """Where runs of trained tokens begin and end."""
    runs, start = [], None
    for index, label in enumerate([*labels, UNTRAINED]):
        if label != UNTRAINED and start is None:
            start = index
        elif label == UNTRAINED and start is not None:
            runs.append((start, index))
            start = None
    return runs
