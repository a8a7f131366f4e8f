"""What TRL would train: the rows of a dialogue beside the row that TRL itself makes of the same messages.

In: a rendered dialogue, its record, its options. Out: `Compared`: TRL's row token by token, what each of the two trains
of it, a verdict for each assistant turn, and every difference with its reason.

What is guaranteed: TRL's ids and labels are what its own trainer hands to the loss, through its preparation, data
loader and collator; nothing of it is imitated. Each token that only one of the two trains is in exactly one
`Difference`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlgc.against import align, ask
from dlgc.against.align import REASONS, Difference, Piece, Turn
from dlgc.against.ask import Theirs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlgc.api import Rendered
    from dlgc.options import Against

__all__ = ["REASONS", "Compared", "Difference", "Piece", "Theirs", "Turn", "compare"]

NEEDED = ("torch", "transformers", "datasets", "trl")


@dataclass(frozen=True)
class Compared:
    """The rows of a dialogue beside TRL's.

    Attributes:
        settings: Which settings of TRL were asked for.
        theirs: What TRL makes of the dialogue.
        rows: Rows of dlgc.
        tokens: Tokens of these rows.
        trained: Tokens that dlgc trains.
        pieces: TRL's row token by token, and in its place what it lacks of the targets.
        turns: A verdict for each target.
        differences: Everything that differs; empty where both train the same after the same, or where TRL fails.
        notes: What TRL was given otherwise than the record has it.
    """

    settings: Against
    theirs: Theirs
    rows: int
    tokens: int
    trained: int
    pieces: list[Piece]
    turns: list[Turn]
    differences: list[Difference]
    notes: list[str]


def compare(rendered: Rendered, record: Mapping[str, Any], settings: Against = "trl", **options: object) -> Compared:
    """Asks TRL what it would train, and compares.

    Args:
        rendered: The dialogue as `dlgc.render` gives it.
        record: What it was rendered from: its `tools`, `documents` and `chat_template_kwargs` go to TRL too.
        settings: Which settings TRL has.
        **options: Those that the dialogue was rendered with. TRL's `max_length` is TRL's default unless it is given.

    Raises:
        ImportError: TRL is not installed.
        TokenizerError: Transformers does not load the tokenizer.
        DlgcError: TRL behaves in a way that cannot be compared.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"a comparison with TRL needs {', '.join(missing)}: pip install 'dlgc[train]'")
    theirs = ask.ask(ask.given(rendered.messages, record, options), settings, options)
    pieces, turns, differences = align.align(rendered, theirs) if theirs.failed is None else ([], [], [])
    return Compared(
        settings=settings,
        theirs=theirs,
        rows=len(rendered.rows),
        tokens=sum(len(row.input_ids) for row in rendered.rows),
        trained=sum(label != ask.IGNORED for row in rendered.rows for label in row.labels),
        pieces=pieces,
        turns=turns,
        differences=differences,
        notes=_notes(rendered, record, theirs, options.get("date")),
    )


def _notes(rendered: Rendered, record: Mapping[str, Any], theirs: Theirs, date: object) -> list[str]:
    notes = []
    if record.get("messages") != rendered.messages:
        notes.append("TRL is given the messages as dlgc prepared them for the template; the record has another form")
    if record.get("documents"):
        notes.append("TRL has no column for documents: it is given them as a template argument")
    notes += [
        f"dlgc leaves message {turn['message']} untrained: {turn['code']}: {turn['reason']}"
        for turn in rendered.turns
        if "code" in turn
    ]
    if theirs.dated and date:
        notes.append(f"the template can print the day: TRL's row has today's, dlgc's rows have {date}")
    if theirs.altered:
        notes.append("the dialogue is not the same in a `datasets.Dataset`, which holds no integers beyond 64 bits")
    return notes
