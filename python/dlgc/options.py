"""The options of a compilation, and how they reach the core."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

from dlgc.exceptions import OptionsError

StrPath = str | PathLike[str]
Window = Literal["cover", "last", "drop", "truncate", "reject"]
LongTurns = Literal["leave", "cut"]
Summary = Literal["auto", "data", "state", "extract", "cache", "none"]
SummaryPlace = Literal["system", "user"]
Target = Literal["inference", "template"]
Mask = Literal["exact", "template", "hf-compat"]
State = Literal["ignore", "json-before", "json-after", "context"]
Severity = Literal["note", "warning", "error"]
TrainOn = Literal["all_assistant", "last_turn"]
Rows = Literal["sft", "preference", "kto"]
Packing = Literal["none", "bfd", "bfd-global", "trl-bfd"]
Format = Literal["native", "openai", "sharegpt"]
Against = Literal["trl", "trl-default"]
"""`trl`: what a careful user sets, `assistant_only_loss=True`; `trl-default`: what `SFTConfig()` sets."""


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Options of a compilation; `specs/options.schema.json` says what each takes.

    Attributes:
        tokenizer: A folder with a `tokenizer.json`, a GGUF file, or `builtin`. Without it the built-in one is used and
            the dataset is marked as a demo.
        chat_template: A file, or the name of one of the tokenizer's templates or of a file in `template_path`. Without
            it the tokenizer's own, as transformers picks it: `tool_use` for dialogues with tools, if there is one.
        template_path: Folder in which templates are found by name.
        template_kwargs: Template arguments for every record; those of a record win.
        date: The day that templates print, `YYYY-MM-DD`.
        max_length: Token budget of a row; `auto` is 4096, or the tokenizer's own limit if that is smaller.
        window: What becomes of a dialogue that is longer: `cover` makes the fewest windows in which every assistant
            turn is trained once, each with the head, a summary of what is left out, and the most recent messages;
            `last` makes one window of those; `truncate` cuts rows at the end; `drop` leaves the dialogue
            out, `reject` rejects it. All but `cover` lose turns, which the report counts.
        long_turns: What becomes of a turn that fits no window under `cover`: `leave` leaves it untrained, `cut` trains
            as much of it as fits, and not its stop.
        min_context: Share of `max_length` that each target of a window keeps as context, head and summary included, if
            there is as much before it and as much fits; 1.0 gives each turn a window with all that fits.
        summary: What is said of messages that a window leaves out: `data` is the record's `summaries`, `state` the
            intent and slots so far, `extract` sentences that were said (SumBasic), `auto` is `data`, else `state`. A
            callable writes them (see `SummaryRequest`), and `cache` takes what it has written.
        summary_place: At the end of the system message, or a user message of its own.
        summary_wording: What is written around a summary, with `{summary}` in it; by default a line in English or
            Chinese.
        summary_share: Most of `max_length` that a summary may take.
        summary_cache: Folder of what a callable has written; each summary is asked for once.
        rows: What the rows are: `sft` are sequences for supervised fine-tuning; `preference` are prompts with a better
            and a worse answer each, as for DPO; `kto` are prompts with an answer that is good or bad, and each pair is
            two of them. Records that hold something else are rejected.
        packing: How examples share rows of up to `max_length` tokens: `none`, each has its own; `bfd`, best fit in one
            pass; `bfd-global`, best fit over all rows of a split; `trl-bfd`, exactly as TRL packs.
        target: What a proved target is measured against: the prompt that a server sends (a turn whose prompt does not
            nest has a row of its own), or the rendering of the whole dialogue in one row, as TRL trains it.
        mask: Where trained tokens are taken from; other than `exact` it is always the rendering of the whole dialogue.
        train_on: Which assistant messages are trained.
        state: What becomes of `state`.
        control_tokens: What becomes of the text of control tokens in content: `reject`, `text` or `allow`, for one
            role as in `text,assistant=reject`.
        threads: Worker threads; 0 for one a core.
        max_rejects: Largest share of rejected records with which the run still succeeds.
        strict: No rejects, and no warnings that put the result in doubt.
        overwrite: Replace a dataset that is already there.
        max_record_bytes: Largest record that is read.
        shard_tokens: Tokens after which a shard is closed; an interrupted run goes on from its last whole shard.
        severity: `note`, `warning` or `error` by diagnostic, where it is to differ from the catalogue: what is made an
            error rejects the record, what is made a note is only counted.
        formats: Formats of your own by name, as `[formats.NAME]` in `dlgc.toml` has them: where the messages are, who
            speaks, what is said.
        assistant: Who is trained where a set names speakers and not roles: a name, or `both`, each in a dialogue of its
            own. Without it the second one who speaks.
        where: Which dialogues are taken: an SQL condition over their fields and metadata, such as `reward = 1`.
        split: Shares of the splits, such as `{"validation": 0.05}`; by a hash of the group or the id, so a dialogue
            stays where it is when data is added. A record's own `split` wins.
        stratify: What splits and folds are stratified by: an SQL expression such as `intent` or `domain`. Dialogues of
            each value are dealt out in the order of the input; what is added behind them moves nothing.
        folds: Folds for cross-validation, by the same hash, in the column `fold`; 0 for none.
    """

    tokenizer: str | None = None
    chat_template: str | None = None
    template_path: str | None = None
    template_kwargs: dict[str, object] | None = None
    date: str | None = None
    max_length: int | Literal["auto", "none"] = "auto"
    window: Window = "cover"
    long_turns: LongTurns = "leave"
    min_context: float = 0.5
    summary: Summary = "auto"
    summary_place: SummaryPlace = "system"
    summary_wording: str | None = None
    summary_share: float = 0.25
    summary_cache: str | None = None
    rows: Rows = "sft"
    packing: Packing = "none"
    target: Target = "inference"
    mask: Mask = "exact"
    train_on: TrainOn = "all_assistant"
    state: State = "ignore"
    control_tokens: str = "reject"
    threads: int = 0
    max_rejects: float = 0.01
    strict: bool = False
    overwrite: bool = False
    max_record_bytes: int = 64 << 20
    shard_tokens: int = 1 << 26
    severity: dict[str, Severity] = field(default_factory=dict)
    formats: dict[str, dict[str, object]] = field(default_factory=dict)
    assistant: str | None = None
    where: str | None = None
    split: dict[str, float] = field(default_factory=dict)
    folds: int = 0
    stratify: str | None = None

    @classmethod
    def of(cls, options: dict[str, object]) -> CompileOptions:
        """Takes keyword arguments; paths become strings.

        Raises:
            OptionsError: An option that does not exist.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise OptionsError(f"no such option: {', '.join(unknown)}\nhint: there are {', '.join(sorted(known))}")
        plain = {name: fspath(value) if isinstance(value, Path) else value for name, value in options.items()}
        return cls(**plain)  # type: ignore[arg-type]  # the core checks the types and says which is wrong

    def to_json(self, inputs: list[str] | None = None, output: str | None = None) -> str:
        """Returns the options as the core reads them."""
        return json.dumps({**asdict(self), "inputs": inputs or [], "output": output})
