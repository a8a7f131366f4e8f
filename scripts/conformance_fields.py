"""What a dialogue says, whatever its form: canonical and alternative forms, and what a rendering lost of it.

Nothing here asks dlgc: it is the second opinion on what dlgc normalises and refuses.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance_cases import Json, Message


def text_of(content: Json) -> str:
    """The text of a content: a string, parts, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def arguments_of(call: Json) -> Json:
    """The arguments of a call, as an object."""
    arguments = call["function"].get("arguments")
    if isinstance(arguments, str):
        try:
            return json.loads(arguments)
        except ValueError:
            return arguments
    return arguments


def canonical(messages: list[Message]) -> list[Json]:
    """What is said, whatever the form: normalisation must not change it."""
    merged: list[list[Json]] = []
    for message in messages:
        calls = [
            [call["function"]["name"], arguments_of(call), call.get("id")] for call in message.get("tool_calls", [])
        ]
        rest = [calls, message.get("name"), message.get("tool_call_id")]
        said = [text_of(message.get("content")), message.get("reasoning_content") or ""]
        plain = not calls and message["role"] != "tool"
        if merged and plain and merged[-1][0] == message["role"] and merged[-1][3] == rest:
            for index, text in enumerate(said):
                merged[-1][1 + index] = "\n\n".join(filter(None, [merged[-1][1 + index], text]))
        else:
            merged.append([message["role"], *said, rest])
    return merged


def forms(messages: list[Message]) -> Iterator[list[Message]]:
    """The messages in each form that a template may want, as they are first."""
    has_calls = any(message.get("tool_calls") for message in messages)
    has_null = any(message.get("content") is None for message in messages)
    repeated = any(left["role"] == right["role"] for left, right in itertools.pairwise(messages))
    for merge in (False, True) if repeated else (False,):
        for as_parts in (False, True):
            for empty in (False, True) if has_null else (False,):
                for as_text in (False, True) if has_calls else (False,):
                    yield form(messages, as_parts=as_parts, empty=empty, as_text=as_text, merge=merge)


def form(messages: list[Message], *, as_parts: bool, empty: bool, as_text: bool, merge: bool) -> list[Message]:
    """The messages with content as parts, no null content, arguments as text, repeated roles merged."""
    out: list[Message] = []
    for given in messages:
        message = copy.deepcopy(given)
        content = message.get("content")
        if content is None and empty:
            content = ""
        elif content is not None:
            content = text_of(content)
        message["content"] = content
        for call in message.get("tool_calls", []):
            arguments = arguments_of(call)
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False) if as_text else arguments
        last = out[-1] if out else None
        plain = not message.get("tool_calls") and message["role"] != "tool"
        if merge and last and plain and last["role"] == message["role"] and not last.get("tool_calls"):
            last["content"] = "\n\n".join(filter(None, [last["content"], content]))
        else:
            out.append(message)
    if as_parts:
        for message in out:
            if message["content"] is not None:
                message["content"] = [{"type": "text", "text": message["content"]}]
    return out


def misprinted(messages: list[Message], text: str) -> bool:
    """Whether a text holds Python's repr of a list or an object, or JSON that was encoded twice."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and repr(content)[:30] in text:
            return True
        for call in message.get("tool_calls", []):
            arguments = call["function"].get("arguments")
            if isinstance(arguments, dict) and arguments and repr(arguments) in text:
                return True
            if isinstance(arguments, str) and '"' in arguments and json.dumps(arguments, ensure_ascii=False) in text:
                return True
    return False


def printed(text: str, said: str) -> bool:
    """Whether a text stands in another, as it is or as a JSON string."""
    said = said.strip()
    return said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text or json.dumps(said)[1:-1] in text


class Words:
    """The same dialogue with a word of its own for each thing that must not be lost."""

    def __init__(self, *, tags: bool) -> None:
        """Starts without words; `tags` says whether the template takes reasoning out of content by its tags."""
        self._tags = tags
        self.said: dict[str, tuple[str, str]] = {}

    def word(self, name: str, said: str) -> str:
        """A word that stands for what was said."""
        found = f"Zw{len(self.said)}q"
        self.said[found] = (name, said)
        return found

    def messages(self, messages: list[Message]) -> list[Message]:
        """The messages with words in content, calls and arguments; reasoning stays, a template may drop it."""
        out = copy.deepcopy(messages)
        for index, message in enumerate(out):
            place = f"{message['role']} {index}"
            content = message.get("content")
            if isinstance(content, list):
                for part in content:
                    part["text"] = self._text(place, part["text"], message["role"])
            elif content is not None:
                message["content"] = self._text(place, content, message["role"])
            for call in message.get("tool_calls", []):
                function = call["function"]
                arguments = arguments_of(call)
                was_text = isinstance(function.get("arguments"), str)
                if isinstance(arguments, dict):
                    arguments = self._leaves(f"argument of {place}", arguments)
                    function["arguments"] = json.dumps(arguments) if was_text else arguments
                function["name"] = self.word(f"call of {place}", function["name"])
        return out

    def around(self, around: dict[str, Json]) -> dict[str, Json]:
        """Tools and documents with words for names and texts."""
        out = copy.deepcopy(around)
        for tool in out.get("tools") or []:
            function = tool.get("function", tool)
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                function["name"] = self.word("tool", function["name"])
        for document in out.get("documents") or []:
            key = "text" if "text" in document else "content"
            if document.get(key):
                document[key] = self.word("document", document[key])
        return out

    def _text(self, place: str, text: str, role: str) -> str:
        """What stands after reasoning tags, or in a JSON object, becomes words; the rest stays as templates see it.

        To a template that never names the tags they are content like any other, and must not be lost.
        """
        tagged = role == "assistant" and self._tags
        head, tag, said = text.rpartition("</think>") if tagged else ("", "", text)
        if not said.strip():
            return text
        if role == "tool":
            try:
                parsed = json.loads(said)
            except ValueError:
                parsed = None
            if isinstance(parsed, dict | list) and parsed:
                return json.dumps({"a": self.word(place, said)})
        lead, trail = re.match(r"\s*", said), re.search(r"\s*$", said)
        before, after = lead.group() if lead else "", trail.group() if trail else ""
        return head + tag + before + self.word(place, said) + after

    def _leaves(self, name: str, node: Json) -> Json:
        if isinstance(node, dict):
            return {key: self._leaves(name, value) for key, value in node.items()}
        if isinstance(node, list):
            return [self._leaves(name, value) for value in node]
        if isinstance(node, str) and node.strip():
            return self.word(name, node)
        return node
