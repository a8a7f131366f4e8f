"""Random dialogues that are hard on a template, on a proof by words, or on a tokenizer."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oracle import Message, Record

WORDS = (
    "a", "b", "ab", "yes", "no", "ok", "Paris", "1", "12", "0.5", "assistant", "user", "model", "system",
    "tool", "None", "null", "true", "[]", "{}", "''", '"', "\\", "\\n", "Qz7m0n0Zq", "Qz7m1n0Zq", "Qz7",
    "709150010009", "Ab2", "Qa1 question", "zq5", "find_it", "get_fare", "a1", "重庆", "票价", "カ\u3099", "ガ",
    "e\u0301", "مرحبا", "👨\u200d👩\u200d👧", "🏳️\u200d🌈", "\u200b", "\ufeff", "x" * 40, "{{ messages }}",
    "{% endfor %}", "{# x #}", "```json\n{}\n```", '{"role": "assistant"}', "<b>", "</b>", "<x y>", "<", ">",
    "<|", "|>", "</", "[/INST]", "### Response:", "\u2581",
)  # fmt: skip
SPACES = ("", "", "", " ", "  ", "\n", "\n\n", "\t", " \n", "\r\n", "\u3000", "\u00a0", "\u2028")
THINK = ("<think>", "</think>", "<think>\n", "\n</think>\n\n", "<|channel|>", "<answer>")
NAMES = ("get_fare", "a", "f", "lookup", "get", "fare", "functions", "查询", "x-y", "assistant")
LITERAL = re.compile(r"'([^'\\]{2,24})'|\"([^\"\\]{2,24})\"|(<[^<>{}\s]{1,30}>)")


class Maker:
    """Makes dialogues: the same ones for the same seed."""

    def __init__(self, seed: str, template: str, control: list[str]) -> None:
        """Takes what the template's own text offers."""
        self.random = random.Random(seed)  # noqa: S311  # no secret
        found = {next(filter(None, groups)) for groups in LITERAL.findall(template)}
        self.of_template = sorted(found) or ["x"]
        self.control = control
        self.pool: list[str] = []
        self.tags = False

    def maybe(self, share: float) -> bool:
        """True in this share of all cases."""
        return self.random.random() < share

    def text(self, longest: int = 5) -> str:
        """A string; sometimes one that was used before, or a piece of it."""
        if self.pool and self.maybe(0.25):
            said = self.random.choice(self.pool)
            return said if self.maybe(0.6) else said[self.random.randrange(len(said) + 1) :]
        parts = [self.random.choice(SPACES)]
        for _ in range(self.random.randint(0, longest)):
            source: Sequence[str] = WORDS
            if self.tags and self.maybe(0.16):
                source = self.random.choice([self.of_template, self.of_template, self.control, THINK])
            parts += [self.random.choice(source), self.random.choice(SPACES)]
        said = "".join(parts)
        self.pool = [*self.pool[-8:], said]
        return said

    def value(self, depth: int = 2) -> Any:  # noqa: ANN401  # any JSON
        """A value as calls have it."""
        kinds = ["text", "text", "text", "number", "word"] + ["list", "object"] * (depth > 0)
        match self.random.choice(kinds):
            case "text":
                return self.text(2)
            case "number":
                return self.random.choice([0, 1, -7, 12, 2.5, 1e22, 10**30, 0.1])
            case "word":
                return self.random.choice([True, False, None])
            case "list":
                return [self.value(depth - 1) for _ in range(self.random.randint(0, 3))]
        return {self.key(): self.value(depth - 1) for _ in range(self.random.randint(0, 3))}

    def key(self) -> str:
        """The name of a value."""
        return self.random.choice(["from", "to", "n", "é", "城市", "a b", "name", "arguments", "type"])

    def call(self, names: list[str], number: int) -> Message:
        """A call of one of the functions."""
        arguments: object = {self.key(): self.value() for _ in range(self.random.randint(0, 3))}
        name = self.random.choice(names)
        ids = [f"call{number:05}", f"functions.{name}:{number}", f"{number:09}"]
        if self.maybe(0.3):
            arguments = json.dumps(arguments, ensure_ascii=self.maybe(0.5))
        return {
            "id": self.random.choice(ids),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def assistant(self, names: list[str], number: int) -> Iterator[Message]:
        """An assistant message, and results where it calls."""
        message: Message = {"role": "assistant", "content": self.text()}
        if self.maybe(0.25):
            message["reasoning_content"] = f"{self.text()} thought{number}of{self.random.randrange(10**6)}."
        calls = []
        if names and self.maybe(0.5):
            calls = [self.call(names, number * 10 + i) for i in range(self.random.choice([1, 1, 1, 2, 3]))]
            message["tool_calls"] = calls
            message["content"] = self.random.choice([None, "", message["content"]])
        if self.maybe(0.05):
            message["train"] = False
        yield message
        for call in calls:
            result: Message = {"role": "tool", "tool_call_id": call["id"], "content": self.text(3)}
            if self.maybe(0.5):
                result["name"] = call["function"]["name"]
            if self.maybe(0.2):
                del result["content"]
                result["result"] = self.value()
            yield result

    def record(self) -> Record:
        """A dialogue."""
        self.pool, self.tags = [], self.maybe(0.3)
        names = self.random.sample(NAMES, self.random.randint(1, 3)) if self.maybe(0.4) else []
        messages: list[Message] = []
        if self.maybe(0.3):
            messages.append({"role": "system", "content": self.text()})
        for number in range(self.random.choice([1, 1, 2, 2, 3, 4, 6])):
            if self.maybe(0.93):
                messages.append({"role": "user", "content": self.text()})
            if self.maybe(0.05):
                messages.append({"role": self.random.choice(["user", "system"]), "content": self.text()})
            messages += self.assistant(names, number)
            if messages[-1]["role"] == "tool":
                messages += self.assistant(names if self.maybe(0.3) else [], number + 50)
        found: Record = {"messages": messages}
        if names and self.maybe(0.8):
            parameters = {"type": "object", "properties": {"from": {"type": "string", "description": self.text(2)}}}
            found["tools"] = [
                {"type": "function", "function": {"name": name, "description": self.text(3), "parameters": parameters}}
                for name in names
            ]
        if self.maybe(0.05):
            found["documents"] = [{"title": self.text(1), "text": self.text(3)} for _ in range(2)]
        if self.maybe(0.15):
            found["chat_template_kwargs"] = {"enable_thinking": self.maybe(0.5)}
        return found
