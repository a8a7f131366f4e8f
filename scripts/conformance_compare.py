"""One template with one tokenizer: every dialogue through dlgc and through transformers, and how the two differ.

transformers is asked in two halves, because the whole of `apply_chat_template` for every prompt of every dialogue
takes hours: its own compiled template, whose renderings are remembered where only the tokenizer changes, and the
backend of its tokenizer. For the small kinds of dialogue both halves are compared with the whole in every cell.
"""

from __future__ import annotations

import collections
import datetime as dt
import hashlib
import json
import re
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jinja2.debug
import tokenizers
import transformers
from conformance_fields import Words, canonical, forms, misprinted, printed
from oracle import UNTRAINED, trained_runs
from transformers.utils import chat_template_utils

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conformance_cases import Case, Json, Message

DATE = dt.date(2025, 10, 20)
EVERY_TURN_WITH = "qwen3"
"""With this tokenizer every turn is compared, with the others so many of a dialogue: its text is the same with all."""
TURNS = 3
OF_FILE = "ids of the file"
DROPPED = "dropped by history"
"""Ids are those of `tokenizer.json`, and AutoTokenizer, which builds a tokenizer of its own from it, has others."""


class _Clock(dt.datetime):
    """The clock of templates that print the date stands still, so that a run may pass midnight."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _Clock:
        return cls(DATE.year, DATE.month, DATE.day, 12, 0, 0, tzinfo=tz)


chat_template_utils.datetime = _Clock

# A template that raises is asked often, and Jinja takes a millisecond to make each traceback a pretty one.
jinja2.debug.rewrite_traceback_stack = lambda source=None: sys.exc_info()[1]  # type: ignore[assignment, return-value]  # noqa: ARG005  # called by that name


@dataclass
class Outcome:
    """What became of one dialogue.

    Attributes:
        name: The dialogue.
        kind: Its kind.
        ours: `rendered`, or the code with which dlgc refuses it; `template` where it refuses the template.
        reason: What dlgc says of a refusal.
        theirs: `kept` (transformers renders it with every field), `lost` or `raised`.
        lost: Fields without a trace in transformers' text.
        nests: Whether each prompt is how transformers' text of the whole dialogue begins.
        mismatches: Class and detail of everything that differs.
        turns: Assistant turns: `shared`, `own row`, or the code for which one is untrained.
        notes: Counted, and no mismatch.
    """

    name: str
    kind: str
    ours: str = "rendered"
    reason: str = ""
    theirs: str = "kept"
    lost: list[str] = field(default_factory=list)
    nests: bool = False
    mismatches: list[tuple[str, str]] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Reference:
    """transformers' tokenizer of a folder, and the one that `tokenizer.json` alone describes."""

    def __init__(self, folder: Path) -> None:
        """Loads both."""
        self.folder = folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.specials = dict(self.tokenizer.special_tokens_map)
        self._file = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Ids of a text, without added special tokens."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) > 1 << 10:
                self._known.clear()
            (encoding,) = self.tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)
            known = self._known[text] = encoding.ids
        return known

    def ids_of_file(self, text: str) -> list[int]:
        """Ids by `tokenizer.json` alone, from which transformers builds another tokenizer for some classes."""
        return list(self._file.encode(text, add_special_tokens=False).ids)


class Template:
    """transformers' renderings with one template, and what they lose. Remembers them."""

    def __init__(self, path: Path) -> None:
        """Reads the template."""
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        # A special token that the template never names cannot change its text.
        self._names = chat_template_utils._get_template_variables(self.source)  # noqa: SLF001  # as transformers does
        self._scenes: dict[str, Scene] = {}

    def scene(self, messages: list[Message], around: dict[str, Json], specials: dict[str, str]) -> Scene:
        """The renderings of one dialogue."""
        context = {name: text for name, text in specials.items() if name in self._names} | around
        key = hashlib.sha256(json.dumps([messages, context]).encode()).hexdigest()
        if key not in self._scenes:
            self._scenes[key] = Scene(self.source, messages, around, context)
        return self._scenes[key]


class Scene:
    """transformers' renderings of one dialogue with one template."""

    def __init__(self, source: str, messages: list[Message], around: dict[str, Json], context: dict[str, Json]) -> None:
        """Takes the messages as `apply_chat_template` does: a key without a value is no key."""
        self.messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
        self._source = source
        self._around = around
        self._context = context
        self._texts: dict[tuple[int, bool], str | Exception] = {}
        self._lost: list[str] | None = None
        self._newest: set[int] = set()

    def text(self, count: int | None = None, *, prompt: bool = False) -> str:
        """The rendering of the first messages; raises whatever the template raises."""
        count = len(self.messages) if count is None else count
        if (count, prompt) not in self._texts:
            try:
                self._texts[count, prompt] = self._render(self.messages[:count], self._context, prompt=prompt)
            except Exception as error:  # noqa: BLE001  # a template may raise anything
                self._texts[count, prompt] = error
        found = self._texts[count, prompt]
        if isinstance(found, Exception):
            raise found
        return found

    def text_or_none(self, count: int | None = None, *, prompt: bool = False) -> str | None:
        """The same, or nothing where the template raises."""
        return _or_none(lambda: self.text(count, prompt=prompt))

    def lost(self) -> list[str]:
        """Fields without a trace in the text: each is replaced by a word of its own, and the word is missed."""
        if self._lost is None:
            words = Words(tags="</think>" in self._source)
            messages, around = words.messages(self.messages), words.around(self._around)
            shown = _or_none(lambda: self._render(messages, self._context | around, prompt=False))
            if shown is None:
                text = self.text()
                self._lost = [name for name, said in words.said.values() if not printed(text, said)]
            else:
                lost = {word: name for word, (name, _) in words.said.items() if word not in shown}
                self._lost = list(lost.values())
                self._newest = self._shown_while_newest(lost, messages, self._context | around)
        return self._lost

    def _shown_while_newest(self, lost: dict[str, str], messages: list[Message], context: dict[str, Json]) -> set[int]:
        """Assistant messages whose content history drops, though they are shown whole while they are the newest."""
        places: dict[int, list[str]] = {}
        for word, name in lost.items():
            if found := re.fullmatch(r"assistant (\d+)", name):
                places.setdefault(int(found[1]), []).append(word)

        def shown(place: int) -> str:
            return _or_none(lambda: self._render(messages[: place + 1], context, prompt=False)) or ""

        return {place for place, words in places.items() if all(word in shown(place) for word in words)}

    def dropped_by_history(self) -> set[int]:
        """Messages of which nothing is lost but their content, and that only from the prompts of later turns."""
        self.lost()
        return self._newest

    def nests(self) -> bool:
        """Whether each prompt is how the text of the whole begins."""
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant" and place > 0]
        prompts = [self.text_or_none(place, prompt=True) for place in places]
        return all(prompt is not None and self.text().startswith(prompt) for prompt in prompts)

    def _render(self, messages: list[Message], context: dict[str, Json], *, prompt: bool) -> str:
        """What `render_jinja_template` does with plain data."""
        if not messages:
            raise ValueError("an empty conversation")
        template = chat_template_utils._compile_jinja_template(self._source)  # noqa: SLF001  # its own
        chat = chat_template_utils._alias_reasoning_fields(messages)  # noqa: SLF001  # its own
        defaults = {"tools": None, "documents": None}
        return str(template.render(messages=chat, add_generation_prompt=prompt, **(defaults | context)))


class Cell:
    """One template with one tokenizer."""

    def __init__(self, template: Template, reference: Reference) -> None:
        """Loads dlgc with them; `refusal` is what it says where it cannot use the template."""
        self._template = template
        self._reference = reference
        self.refusal = ""
        options: dict[str, object] = {
            "tokenizer": str(reference.folder),
            "chat_template": str(template.path),
            "max_length": "none",
            "date": DATE.isoformat(),
        }
        try:
            self._renderer = _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())
        except dlgc.TemplateError as error:
            self.refusal = str(error).splitlines()[0]
        # How a last turn ends after its content.
        self._tails: set[str] = set()
        plain = [{"role": "user", "content": "Qa question"}, {"role": "assistant", "content": "Ab answer"}]
        parts = [message | {"content": [{"type": "text", "text": message["content"]}]} for message in plain]
        for messages in (plain, parts):
            shown = self._scene(messages, {}).text_or_none() or ""
            self._tails |= {shown.rpartition("Ab answer")[2]} - {shown}

    def run(self, case: Case) -> Outcome:
        """One dialogue through both."""
        outcome = Outcome(case.name, case.kind)
        if self.refusal:
            outcome.ours, outcome.reason = "template", self.refusal
            self._best_form(case, outcome)
            return outcome
        found = json.loads(self._renderer.render(case.record))
        if found["text"] is None:
            error = [item for item in found["diagnostics"] if item["severity"] == "error"][-1]
            outcome.ours, outcome.reason = error["code"], error["message"]
            self._best_form(case, outcome)
            return outcome
        messages = json.loads(found["messages"])
        if canonical(messages) != canonical(case.messages):
            outcome.mismatches.append(("normalised", json.dumps(messages, ensure_ascii=False)[:300]))
        scene = self._scene(messages, case.around)
        try:
            text = scene.text()
        except Exception as error:  # noqa: BLE001  # a template may raise anything
            outcome.theirs = "raised"
            outcome.mismatches.append(("theirs raises", f"{type(error).__name__}: {error}"))
            return outcome
        self._judge(scene, outcome)
        if text != found["text"]:
            outcome.mismatches.append(("text", difference(text, found["text"])))
            return outcome
        unnoticed = self._unnoticed(found, scene, outcome)
        if unnoticed:
            outcome.mismatches.append(("lost unnoticed", ", ".join(unnoticed)[:300]))
        if case.kind == "kind":
            self._prove_halves(messages, case.around, scene, outcome)
        self._law(found, scene, outcome)
        return outcome

    @staticmethod
    def _unnoticed(found: Json, scene: Scene, outcome: Outcome) -> list[str]:
        """What is lost of a dialogue that dlgc compiles: not what history drops of a turn that is trained whole."""
        trained = {turn["message"] for turn in found["turns"] if "code" not in turn}
        dropped = {f"assistant {place}" for place in scene.dropped_by_history() & trained}
        if dropped:
            outcome.notes.append(DROPPED)
        return [name for name in outcome.lost if name not in dropped]

    def _scene(self, messages: list[Message], around: dict[str, Json]) -> Scene:
        return self._template.scene(messages, around, self._reference.specials)

    def _prove_halves(self, messages: list[Message], around: dict[str, Json], scene: Scene, outcome: Outcome) -> None:
        """Whether transformers as a whole gives what its two halves give."""
        tokenizer = self._reference.tokenizer
        for prompt in (False, True):
            halves = scene.text_or_none(prompt=prompt)
            if halves is None:
                continue
            common = {"chat_template": self._template.source, "add_generation_prompt": prompt, **around}
            whole = tokenizer.apply_chat_template(messages, tokenize=False, **common)
            ids = tokenizer.apply_chat_template(messages, return_dict=True, **common)["input_ids"]
            if whole != halves or ids != self._reference.ids(halves):
                outcome.mismatches.append(("halves", "apply_chat_template gives something else than its halves"))

    def _best_form(self, case: Case, outcome: Outcome) -> None:
        """What transformers makes of a dialogue that dlgc refuses, in the form that suits the template best."""
        best: Scene | None = None
        for form in forms(case.messages):
            scene = self._scene(form, case.around)
            text = scene.text_or_none()
            if text is None or misprinted(form, text):
                continue
            if best is None or len(scene.lost()) < len(best.lost()):
                best = scene
            if not best.lost():
                break
        if best is None:
            outcome.theirs = "raised"
        else:
            self._judge(best, outcome)

    @staticmethod
    def _judge(scene: Scene, outcome: Outcome) -> None:
        outcome.lost = scene.lost()
        outcome.theirs = "lost" if outcome.lost else "kept"
        outcome.nests = scene.nests()

    def _law(self, found: Json, scene: Scene, outcome: Outcome) -> None:
        """Ids of the whole text, and each trained turn after exactly its prompt."""
        text = scene.text()
        places = positions(found, scene.messages)
        if places is None:
            outcome.notes.append("turns without a place")
            places = {}
        turns = {turn["message"]: turn for turn in found["turns"]}
        counts = collections.Counter(turn["code"] for turn in found["turns"] if "code" in turn)
        trained = [message for row in found["rows"] for message in row["trained_messages"]]
        checked = self._checked(trained)
        if sorted(trained) != sorted(message for message, turn in turns.items() if "code" not in turn):
            outcome.mismatches.append(("turns", f"trained {trained}, turns {sorted(turns)}"))
        for row in found["rows"]:
            is_own = self._is_own(row, turns, text)
            counts["own row" if is_own else "shared"] += len(row["trained_messages"])
            if not is_own:
                self._same_ids("ids", text, row["input_ids"], outcome)
            runs = trained_runs(row["labels"])
            if len(runs) != len(row["trained_messages"]):
                outcome.mismatches.append(("runs", f"{len(runs)} runs for messages {row['trained_messages']}"))
                continue
            for run, message in zip(runs, row["trained_messages"], strict=True):
                if message in places and message in checked:
                    prompt = scene.text_or_none(places[message], prompt=True)
                    if prompt is None:
                        outcome.mismatches.append(("prompt raises", f"message {message}"))
                        continue
                    self._on_ids(row, run, turns[message], prompt, outcome, is_own=is_own)
                    before, newest = scene.text_or_none(places[message]), scene.text(places[message] + 1)
                    self._on_text(turns[message], (before or "", prompt, newest), outcome)
        outcome.turns = dict(counts)

    def _checked(self, trained: list[int]) -> set[int]:
        """The turns whose prompt and target are compared: all with one tokenizer, the first and the last ones else."""
        if self._reference.folder.name == EVERY_TURN_WITH or len(trained) <= TURNS:
            return set(trained)
        return set(sorted(trained)[: TURNS - 2] + sorted(trained)[-2:])

    def _is_own(self, row: Json, turns: dict[int, Json], text: str) -> bool:
        """Whether a row is one turn's own: its prompt and target, encoded one after the other."""
        if row["text"] != text:
            return True
        if len(row["trained_messages"]) > 1 or row["input_ids"] == self._reference.ids(text):
            return False
        target = turns[row["trained_messages"][0]]["target"]
        return bool(row["text"].endswith(target)) and row["labels"][-1] != UNTRAINED

    def _same_ids(self, kind: str, text: str, ids: list[int], outcome: Outcome) -> None:
        theirs = self._reference.ids(text)
        if ids == theirs:
            return
        if ids == self._reference.ids_of_file(text):
            outcome.notes.append(OF_FILE)
            return
        at = next((at for at, (left, right) in enumerate(zip(theirs, ids, strict=False)) if left != right), 0)
        tokens = self._reference.tokenizer.convert_ids_to_tokens
        detail = f"at {at} of {len(theirs)}/{len(ids)}: {tokens(theirs[at : at + 6])} / {tokens(ids[at : at + 6])}"
        outcome.mismatches.append((kind, f"{detail} in {text[:80]!r}"))

    def _on_ids(  # noqa: PLR0913  # all that one turn is judged by
        self, row: Json, run: tuple[int, int], turn: Json, prompt: str, outcome: Outcome, *, is_own: bool
    ) -> None:
        """The ids before a target are those of its prompt, and its own decode to it."""
        (start, end), target = run, turn["target"]
        where = f"message {turn['message']}: "
        self._same_ids("prompt ids", prompt, row["input_ids"][:start], outcome)
        if is_own:
            ids, known = row["input_ids"][start:end], self._reference
            if ids not in _after(prompt, target, known.ids):
                if ids in _after(prompt, target, known.ids_of_file):
                    outcome.notes.append(OF_FILE)
                else:
                    tokens = known.tokenizer.convert_ids_to_tokens(ids[:6])
                    outcome.mismatches.append(("target ids", f"{where}{tokens} for {target[:80]!r}"))
        if not row["text"].startswith(prompt + target) or (is_own and row["text"] != prompt + target):
            outcome.mismatches.append(("row text", where + difference(prompt + target, row["text"])))
        if spaceless(self._reference.tokenizer.decode(row["input_ids"][start:end])) != spaceless(target):
            outcome.mismatches.append(("target decodes", where + repr(target[-60:])))

    def _on_text(self, turn: Json, texts: tuple[str, str, str], outcome: Outcome) -> None:
        """A target is what its turn, as the newest, shows after the prompt; `texts` are history, prompt and newest."""
        before, prompt, newest = texts
        target = turn["target"]
        said = target.removesuffix(turn["stop"])
        where = f"message {turn['message']}: "
        rests = [newest[len(prompt) :]]
        if not newest.startswith(prompt):
            # The newest turn drops what the generation prompt opened: the target is how it ends, and what stands
            # before that is how the prompt begins.
            cuts = [cut for cut in _occurrences(newest, target, said) if prompt.startswith(newest[:cut])]
            outcome.notes.append("prompt cut" if cuts else "other history")
            if not cuts and prompt.startswith(before) and (header := prompt[len(before) :]).strip():
                # Not even the history is the same: the target is what stands after the header of the prompt.
                cuts = [cut for cut in _occurrences(newest, target, said) if newest[:cut].endswith(header)]
            rests = [newest[cut:] for cut in cuts]
        if any(rest.startswith(target) and self._ends_a_turn(turn["stop"], rest[len(target) :]) for rest in rests):
            return
        if any(rest.rstrip() == said.rstrip() for rest in rests):
            outcome.notes.append("stop appended")
        else:
            outcome.mismatches.append(("target", where + difference((rests or [newest])[0], target)))

    def _ends_a_turn(self, stop: str, after: str) -> bool:
        """Whether a turn may end in this stop with this after it: white space, or what a plain last turn has there."""
        return bool(stop) and (not after.strip() or any(tail.endswith(stop + after) for tail in self._tails))


def _after(prompt: str, target: str, ids: Callable[[str], list[int]]) -> list[list[int]]:
    """Ids that a target may have after its prompt: as the prompt goes on, else by itself, else after a line break.

    The last is for tokenizers that put a space before every text, which nobody said after the prompt.
    """
    found = []
    for before in (prompt, "", "\n"):
        first, whole = ids(before), ids(before + target)
        if whole[: len(first)] == first:
            found.append(whole[len(first) :])
            if before:
                break
    return found


def positions(found: Json, messages: list[Message]) -> dict[int, int] | None:
    """Place in the messages handed over, by the index in the record that dlgc's verdicts have."""
    assistants = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if len(assistants) == len(found["turns"]):
        return {turn["message"]: place for turn, place in zip(found["turns"], assistants, strict=True)}
    if any(item["code"] == "merged-messages" for item in found["diagnostics"]):
        return None
    return {turn["message"]: turn["message"] for turn in found["turns"]}


def spaceless(text: str) -> str:
    """A text without what tokenizers normalise: spaces and SentencePiece's sign for them, composed accents."""
    return unicodedata.normalize("NFC", text).replace(" ", "").replace("\u2581", "")


def difference(theirs: str, ours: str) -> str:
    """Where two texts part, with a few characters of each."""
    at = next((at for at, (left, right) in enumerate(zip(theirs, ours, strict=False)) if left != right), None)
    at = min(len(theirs), len(ours)) if at is None else at
    return f"at {at}: theirs {theirs[max(0, at - 30) : at + 40]!r}, ours {ours[max(0, at - 30) : at + 40]!r}"


def _occurrences(text: str, *parts: str) -> Iterator[int]:
    """Where the first part stands, from the right, then the second."""
    for part in parts:
        at = text.rfind(part)
        while at >= 0:
            yield at
            at = text.rfind(part, 0, at + len(part) - 1) if at else -1


def _or_none(render: Callable[[], str]) -> str | None:
    try:
        return render()
    except Exception:  # noqa: BLE001  # a template may raise anything
        return None
