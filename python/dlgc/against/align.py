"""Comparing: the targets of a dialogue's rows are found in TRL's row, and what differs gets its reason.

A target is looked for between the contents of the messages around it, so that the same words of another turn are not
taken for it. Where it does not stand there as it is, what can be found of it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dlgc.against.ask import IGNORED, Range, common, gap, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlgc.against.ask import Theirs
    from dlgc.api import Rendered, RenderedRow

HEADER = 8
"""Ids at the end of a prompt that are taken for the header of the turn, where the message before it is not found."""
CONTEXT = 64
"""Ids before a place that tell it from another."""
EXCERPT = 24
"""Letters that are shown of two texts from where they differ."""

REASONS = {
    "user": ("+", "the user's words are trained"),
    "tool": ("+", "a tool's words are trained"),
    "system": ("+", "the system's words are trained"),
    "header": ("+", "header trained: text of the template that the prompt supplies"),
    "after-stop": ("+", "white space after the stop trained: a server has stopped before it"),
    "untrained-turn": ("+", "a turn trained that dlgc leaves untrained"),
    "text-added": ("+", "text trained that the model does not write after the inference prompt"),
    "stop": ("-", "stop token untrained: the model does not learn to end its turn"),
    "reasoning": ("-", "reasoning lost: it is not in TRL's row"),
    "cut": ("-", "targets cut by max_length"),
    "turn": ("-", "turn not trained"),
    "unmarked": ("-", "a part of the turn not trained"),
    "text-missing": ("-", "what the model writes after the inference prompt is not in TRL's row"),
    "prompt": ("~", "trained after a text that differs from the inference prompt"),
}
"""Why the two differ: `+` only TRL trains it, `-` only dlgc does, `~` both do, but TRL after another text."""


@dataclass(frozen=True)
class Piece:
    """A token of TRL's row, or of a target where that row lacks it; tokens that share a character come as one.

    Attributes:
        text: Its text.
        tokens: How many tokens it is.
        ours: Whether dlgc trains it.
        theirs: Whether TRL trains it.
        place: Where it stands in TRL's row; None where that lacks it.
        reason: Why the two differ.
    """

    text: str
    tokens: int
    ours: bool
    theirs: bool
    place: int | None
    reason: str | None


@dataclass(frozen=True)
class Turn:
    """What becomes of one target.

    Attributes:
        message: Index in `Rendered.messages`.
        tokens: Tokens of the target.
        both: How many of them TRL trains too.
        reasons: What differs in this turn.
        prompts: How the prompt that a server sends goes on where TRL's text leaves it, and how that text does.
    """

    message: int
    tokens: int
    both: int
    reasons: list[str]
    prompts: tuple[str, str] | None


@dataclass(frozen=True)
class Difference:
    """One kind of difference.

    Attributes:
        reason: One of `REASONS`.
        sign: Its sign.
        tokens: How many tokens.
        messages: In which of `Rendered.messages`; empty for what belongs to none.
    """

    reason: str
    sign: str
    tokens: int
    messages: list[int]


@dataclass
class _Target:
    """A target of dlgc's, and what is found out about it."""

    message: int
    row: RenderedRow
    tokens: list[int]
    stop: str
    places: list[int | None] = field(default_factory=list)
    """Where each of its tokens stands in TRL's row."""
    reasons: list[str | None] = field(default_factory=list)
    """Why TRL does not train it."""
    prompts: tuple[str, str] | None = None

    @property
    def prompt(self) -> list[int]:
        return self.row.input_ids[: self.tokens[0]]

    @property
    def shown(self) -> list[int]:
        return [place for place in self.places if place is not None]

    @property
    def both(self) -> int:
        return self.reasons.count(None)

    def offset(self, at: int) -> Range:
        return self.row.offsets[self.tokens[at]]


_Added = dict[int, tuple[str, int | None]]
"""The tokens that only TRL trains: the reason, and the message to which each belongs."""


def align(rendered: Rendered, theirs: Theirs) -> tuple[list[Piece], list[Turn], list[Difference]]:
    """Compares the rows of a dialogue with TRL's."""
    targets = _targets(rendered)
    header: set[int] = set()
    cursor = 0
    for target in targets:
        header |= _find(target, rendered.messages, theirs, cursor)
        cursor = max([cursor, *(place + 1 for place in target.shown)])
        _judge(target, rendered.messages[target.message], theirs)
        target.prompts = _prompts(target, theirs) if target.both else None
    added = _added(targets, header, rendered, theirs)
    differences = _differences(targets, added)
    turns = [
        Turn(
            message=target.message,
            tokens=len(target.tokens),
            both=target.both,
            reasons=[found.reason for found in differences if target.message in found.messages],
            prompts=target.prompts,
        )
        for target in targets
    ]
    return list(_pieces(targets, added, theirs)), turns, differences


def _targets(rendered: Rendered) -> list[_Target]:
    """The targets of all rows, in the order of the dialogue."""
    positions = _positions(rendered)
    spans = {span.trained: span for span in rendered.spans}
    stops = {turn["message"]: turn.get("stop", "") for turn in rendered.turns}
    targets = []
    for row in rendered.rows:
        left = [token for token, label in enumerate(row.labels) if label != IGNORED]
        for message in row.trained_messages:
            last = message == row.trained_messages[-1]
            mine = [token for token in left if last or row.offsets[token][0] < spans[message].end]
            left = left[len(mine) :]
            if mine:
                targets.append(_Target(positions[message], row, mine, stops[message]))
    return sorted(targets, key=lambda target: target.message)


def _positions(rendered: Rendered) -> dict[int, int]:
    """Where trained messages of the record stand among those of the template: merged ones are one there."""
    sources = [turn["message"] for turn in rendered.turns]
    assistants = [index for index, message in enumerate(rendered.messages) if message["role"] == "assistant"]
    if len(sources) == len(assistants):
        return dict(zip(sources, assistants, strict=True))
    paths = [item["path"] or "" for item in rendered.diagnostics if item["code"] == "merged-messages"]
    merged = [int(found[1]) for path in paths if (found := re.search(r"\[(\d+)\]", path))]
    return {source: source - sum(index <= source for index in merged) for source in sources}


def _find(target: _Target, messages: list[dict[str, Any]], theirs: Theirs, cursor: int) -> set[int]:
    """Finds a target in TRL's row, from a place on; returns the places of the end of its prompt."""
    low, high = gap(theirs.contents, target.message, len(theirs.text))
    start = max(_token(theirs, low), cursor)
    end = max(_token(theirs, high), start)
    wanted, tail = [target.row.input_ids[token] for token in target.tokens], _tail(target, messages)
    same = common(tail, theirs.input_ids[start:end])
    header, tail, start = set(range(start, start + same)), tail[same:], start + same
    exact = [at for at in range(start, end - len(wanted) + 1) if theirs.input_ids[at : at + len(wanted)] == wanted]
    if exact:
        # Of several, the right one stands after the same.
        prompt = target.prompt[-CONTEXT:][::-1]
        first = max(exact, key=lambda at: (common(prompt, theirs.input_ids[:at][-CONTEXT:][::-1]), -at))
        target.places = list(range(first, first + len(wanted)))
        return header | set(_matches(tail, theirs.input_ids[start:first], start).values())
    found = _matches(tail + wanted, theirs.input_ids[start:end], start)
    target.places = [found.get(len(tail) + at) for at in range(len(wanted))]
    return header | {place for at, place in found.items() if at < len(tail)}


def _token(theirs: Theirs, letter: int) -> int:
    """The first token that reaches beyond a place in TRL's text."""
    return next((at for at, (_, end) in enumerate(theirs.offsets) if end > letter), len(theirs.offsets))


def _tail(target: _Target, messages: list[dict[str, Any]]) -> list[int]:
    """The ids of a prompt after its last message: the header of the turn."""
    first = target.tokens[0]
    words = said(messages[target.message - 1]).encode() if target.message else b""
    at = target.row.text.encode().rfind(words, 0, target.offset(0)[0]) if words else -1
    if at == -1:
        return target.prompt[-HEADER:]
    start = next((token for token in range(first) if target.row.offsets[token][0] >= at + len(words)), first)
    return target.prompt[start:]


def _matches(left: list[int], right: list[int], start: int) -> dict[int, int]:
    """The places of ids in one list, by the places of the same ids in another; in order."""
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return {block.a + step: start + block.b + step for block in blocks for step in range(block.size)}


def _prompts(target: _Target, theirs: Theirs) -> tuple[str, str] | None:
    """Where the text before a target leaves the prompt that a server sends: what that has there, and what this has."""
    before = theirs.input_ids[: target.shown[0]]
    if target.prompt == before:
        return None
    same = common(target.prompt, before)
    ours = target.row.text.encode()[target.row.offsets[same][0] :].decode("utf-8", "replace")
    return _excerpt(ours), _excerpt(theirs.text[theirs.offsets[same][0] :])


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _judge(target: _Target, message: dict[str, Any], theirs: Theirs) -> None:
    """Says of each token of a target why TRL does not train it, or that it does."""
    trained = [place is not None and theirs.trains(place) for place in target.places]
    lost = _lost_with_reasoning(target, message)
    stop = target.offset(-1)[1] - len(target.stop.encode())
    following = len(theirs.input_ids)
    for at in reversed(range(len(target.tokens))):
        place = target.places[at]
        following = following if place is None else place
        reason: str | None = "unmarked"
        if trained[at]:
            reason = None
        elif following >= theirs.kept < len(theirs.input_ids):
            reason = "cut"
        elif place is None:
            reason = "reasoning" if at in lost else "text-missing"
        elif not any(trained):
            reason = "turn"
        elif target.offset(at)[0] >= stop:
            reason = "stop"
        target.reasons.insert(0, reason)


def _lost_with_reasoning(target: _Target, message: dict[str, Any]) -> set[int]:
    """The tokens that TRL's row lacks in one piece with reasoning of the message."""
    inside, mark, _ = said(message).partition("</think>")
    reasoning = (message.get("reasoning_content") or inside * bool(mark)).replace("<think>", "").strip().encode()
    start = target.row.text.encode().find(reasoning, target.offset(0)[0]) if reasoning else -1
    lost: set[int] = set()
    run: list[int] = []
    for at, place in enumerate([*target.places, 0]):
        if place is None:
            run.append(at)
            continue
        if run and -1 < start < target.offset(run[-1])[1] and target.offset(run[0])[0] < start + len(reasoning):
            lost.update(run)
        run = []
    return lost


def _added(targets: list[_Target], header: set[int], rendered: Rendered, theirs: Theirs) -> _Added:
    """Says of each token that only TRL trains what it is."""
    owned = {place for target in targets for place in target.shown}
    inside, after = _around(targets, theirs)
    own = {target.message for target in targets}
    untrained = {index: place for index, place in theirs.turns.items() if index not in own}
    roles = [message["role"] for message in rendered.messages]
    words = {index: place for index, place in enumerate(theirs.contents) if place and roles[index] != "assistant"}
    added: _Added = {}
    for at, token in enumerate(theirs.offsets):
        if at in owned or not theirs.trains(at):
            continue
        speaker, turn = _holder(words, token), _holder(untrained, token)
        if speaker is not None:
            added[at] = ("system" if roles[speaker] == "developer" else roles[speaker], speaker)
        elif turn is not None:
            added[at] = ("untrained-turn", turn)
        elif at in after:
            added[at] = ("after-stop", after[at])
        elif at in inside and at not in header:
            added[at] = ("text-added", inside[at])
        else:
            added[at] = ("header", None)
    return added


def _around(targets: list[_Target], theirs: Theirs) -> tuple[dict[int, int], dict[int, int]]:
    """By token of TRL's row: the target in whose turn it stands, and the one after whose stop it is white space."""
    inside: dict[int, int] = {}
    after: dict[int, int] = {}
    for target in targets:
        low, high = theirs.turns[target.message]
        inside |= {at: target.message for at, place in enumerate(theirs.offsets) if low <= place[0] < high}
        if target.shown:
            # To the end of what TRL's row has in the place of a stop that it lacks.
            lacking = len(target.places) - 1 - target.places.index(target.shown[-1])
            inside |= dict.fromkeys(range(target.shown[0], target.shown[-1] + lacking + 1), target.message)
        at = len(theirs.offsets) if target.places[-1] is None else target.places[-1] + 1
        while at < len(theirs.offsets) and not theirs.text[slice(*theirs.offsets[at])].strip():
            after[at] = target.message
            at += 1
    return inside, after


def _holder(places: dict[int, Range], token: Range) -> int | None:
    """The message in whose place a token stands."""
    return next((index for index, place in places.items() if token[0] < place[1] and place[0] < token[1]), None)


def _differences(targets: list[_Target], added: _Added) -> list[Difference]:
    """Counts what differs, in the order of `REASONS`."""
    found: list[tuple[str, int | None, int]] = [(reason, message, 1) for reason, message in added.values()]
    found += [(reason, target.message, 1) for target in targets for reason in target.reasons if reason]
    found += [("prompt", target.message, target.both) for target in targets if target.prompts]
    differences = []
    for reason, (sign, _) in REASONS.items():
        mine = [item for item in found if item[0] == reason]
        if mine:
            messages = sorted({message for _, message, _ in mine if message is not None})
            differences.append(Difference(reason, sign, sum(tokens for _, _, tokens in mine), messages))
    return differences


def _pieces(targets: list[_Target], added: _Added, theirs: Theirs) -> Iterator[Piece]:
    """Yields TRL's row, and before the token that follows it what it lacks of the targets."""
    reasons = {at: reason for at, (reason, _) in added.items()}
    owned: dict[int, str | None] = {}
    lacking: dict[int, list[tuple[_Target, list[int]]]] = {}
    for target in targets:
        owned |= {place: target.reasons[at] for at, place in enumerate(target.places) if place is not None}
        for where, lost in _lacking(target, theirs).items():
            lacking.setdefault(where, []).append((target, lost))
    for group in _sharing(theirs.offsets):
        for target, lost in (found for at in group for found in lacking.pop(at, ())):
            yield from _lost_pieces(target, lost)
        shown = theirs.text[theirs.offsets[group.start][0] : max(theirs.offsets[at][1] for at in group)]
        # As good as always the tokens of one character are all trained, or none is.
        states = [(at in owned, theirs.trains(at), reasons.get(at, owned.get(at))) for at in group]
        for state, run in groupby(zip(states, group, strict=True), key=lambda pair: pair[0]):
            places = [at for _, at in run]
            ours, trained, reason = state
            yield Piece(shown if places[0] == group.start else "", len(places), ours, trained, places[0], reason)
    for target, lost in (found for rest in lacking.values() for found in rest):
        yield from _lost_pieces(target, lost)


def _lacking(target: _Target, theirs: Theirs) -> dict[int, list[int]]:
    """What TRL's row lacks of a target, by the place before which it would stand."""
    lacking: dict[int, list[int]] = {}
    where = target.shown[0] if target.shown else _token(theirs, theirs.turns[target.message][0])
    for at, place in enumerate(target.places):
        if place is None:
            lacking.setdefault(where, []).append(at)
        else:
            where = place + 1
    return lacking


def _lost_pieces(target: _Target, lost: list[int]) -> Iterator[Piece]:
    text = target.row.text.encode()
    offsets = [target.offset(at) for at in lost]
    for group in _sharing(offsets):
        shown = text[offsets[group.start][0] : max(offsets[at][1] for at in group)].decode("utf-8", "replace")
        yield Piece(shown, len(group), ours=True, theirs=False, place=None, reason=target.reasons[lost[group.start]])


def _sharing(offsets: Sequence[Range]) -> Iterator[range]:
    """Yields runs of tokens that share a character."""
    start = 0
    while start < len(offsets):
        end, stop = start + 1, offsets[start][1]
        while end < len(offsets) and offsets[end][0] < stop:
            stop = max(stop, offsets[end][1])
            end += 1
        yield range(start, end)
        start = end
