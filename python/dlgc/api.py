"""What `import dlgc` offers: compile, check, render, window, verify, verify_tokenizer, repack, drift."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from dlgc import _dlgc
from dlgc.exceptions import RejectedError
from dlgc.options import CompileOptions, Format, Packing, StrPath
from dlgc.summaries import Summariser, missing_summaries, with_summariser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Progress = Callable[[int, int | None, int, int, int], None]

SUMMARY_BATCH = 64
"""Most summaries that a callable is asked for at once."""


@dataclass(frozen=True)
class Report:
    """What a compilation says at its end.

    Attributes:
        ledger: What became of the records, dialogues and assistant turns.
        diagnostics: By code: severity, count and the first few examples.
        formats: Records by the format they had.
        resumed: Records of an interrupted run that were not compiled again.
        rows: Rows.
        examples: Examples: as many as rows, unless these are packed.
        utilisation: Share of the tokens for which the rows have room that they hold; None where they are not packed.
        tokens: Tokens of the rows.
        source_tokens: Tokens of the compiled dialogues, each counted once: fewer where turns have rows of their own.
        trained_tokens: Tokens that are trained.
        windows: What windows cost and leave out, in counts; all zero where every dialogue fits.
        answers: How long the answers of preferences are, in trained tokens, of both sides; None without preferences.
        certificate: What the rows are, in counts, as in the manifest; None where no rows are made.
        statement: The same in a sentence; None where nothing is trained.
        skipped: Files that were not read, each with the reason.
        encoding: Which way text became ids: `fast` names the kind of tokenizer, else `why` says why the reference did
            all the work, and `difference` what made it so in the middle of the run; None where no rows are made.
        failure: Why the run is a failure although it went through to its end; None for a success.
        manifest: The manifest, if a dataset was written.
    """

    ledger: dict[str, Any]
    diagnostics: dict[str, Any]
    formats: dict[str, int]
    resumed: int
    rows: int
    examples: int
    utilisation: float | None
    tokens: int
    source_tokens: int
    trained_tokens: int
    windows: dict[str, int]
    answers: dict[str, Any] | None
    certificate: dict[str, Any] | None
    statement: str | None
    skipped: list[tuple[str, str]]
    encoding: dict[str, Any] | None
    failure: str | None
    manifest: dict[str, Any] | None

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads what the core wrote."""
        found = json.loads(text)
        found["diagnostics"] = found["diagnostics"]["codes"]
        found["skipped"] = [(path, reason) for path, reason in found["skipped"]]
        return cls(**found)

    @property
    def rejected(self) -> int:
        """Records and dialogues that were rejected."""
        return int(self.ledger["records"]["rejected"] + self.ledger["dialogues"]["rejected"])


@dataclass(frozen=True)
class Span:
    """A piece of rendered text: bytes `start` to `end`, and the message that is trained there, if any."""

    start: int
    end: int
    trained: int | None


@dataclass(frozen=True)
class RenderedRow:
    """One row of a dialogue.

    Attributes:
        text: Its text.
        input_ids: Token ids, length n.
        labels: The id where it is trained, -100 elsewhere; length n.
        offsets: Byte range of each token in `text`; length n.
        trained_messages: Indices of the messages that are trained in it.
        window: Which window of the dialogue it is of, from 0; of preferences, which of the answers it ends in.
    """

    text: str
    input_ids: list[int]
    labels: list[int]
    offsets: list[tuple[int, int]]
    trained_messages: list[int]
    window: int = 0


@dataclass(frozen=True)
class RenderedWindow:
    """What one window of a dialogue shows; a dialogue that fits has one, which shows everything.

    Attributes:
        text: The rendered text.
        messages: The messages as they were handed to the template, the summary among them.
        sources: For each message that is shown its index in the dialogue; None for a summary that is a message.
        summary: What is said of the messages that are left out.
    """

    text: str
    messages: list[dict[str, Any]]
    sources: list[int | None]
    summary: str | None


@dataclass(frozen=True)
class RenderedAnswers:
    """What the rows of preferences are to each other: the same prompt, and an answer each.

    Attributes:
        names: What the answers are called, row by row: `chosen` and `rejected`, or `completion`.
        prompt: How many tokens the prompt has, with which each row begins.
        divergence: The first token of the answers in which both differ; None of one with a verdict.
        label: Whether the only answer is good; None of a pair.
    """

    names: list[str]
    prompt: int
    divergence: int | None
    label: bool | None


@dataclass(frozen=True)
class Rendered:
    """A dialogue, rendered and tokenised.

    Attributes:
        text: The rendered text; what transformers' `apply_chat_template(messages, ...)` gives.
        rows: The rows that it becomes: one for all turns whose prompts nest in `text`, one for each other turn.
        spans: Pieces that tile `text`.
        turns: One verdict for each assistant message that is to be trained.
        messages: The messages as they were handed to the template.
        diagnostics: Everything found.
        dialogues: How many dialogues the record has, of which this is one.
        windows: What its windows show; `text`, `spans` and `messages` are those of the first.
        format: The format that the record had, `messages` for the native one.
        answers: What its rows are to each other, if it is one of preferences: one row for each answer.
    """

    text: str
    rows: list[RenderedRow]
    spans: list[Span]
    turns: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    diagnostics: list[dict[str, Any]]
    dialogues: int
    windows: list[RenderedWindow]
    format: str
    answers: RenderedAnswers | None

    @property
    def row(self) -> RenderedRow:
        """The only row.

        Raises:
            ValueError: There are several.
        """
        if len(self.rows) != 1:
            raise ValueError(f"the dialogue becomes {len(self.rows)} rows: see `rows`")
        return self.rows[0]

    @property
    def input_ids(self) -> list[int]:
        """Token ids of the only row."""
        return self.row.input_ids

    @property
    def labels(self) -> list[int]:
        """Labels of the only row."""
        return self.row.labels

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Byte ranges of the tokens of the only row."""
        return self.row.offsets

    @classmethod
    def from_json(cls, text: str) -> Rendered:
        """Reads what the core wrote.

        Raises:
            RejectedError: Nothing came of the record.
        """
        found = json.loads(text)
        if found["text"] is None:
            errors = [item["rendered"] for item in found["diagnostics"] if item["severity"] == "error"]
            what = "the dialogue was rejected" if errors else "no dialogue came of the record"
            errors = errors or [item["rendered"] for item in found["diagnostics"]]
            raise RejectedError(f"{what}\n" + "\n".join(errors), found["diagnostics"])
        found["spans"] = [Span(**span) for span in found["spans"]]
        for row in found["rows"]:
            row["offsets"] = [(start, end) for start, end in row["offsets"]]
        found["rows"] = [RenderedRow(**row) for row in found["rows"]]
        found["messages"] = json.loads(found["messages"])
        windows = [{**window, "messages": json.loads(window["messages"])} for window in found["windows"]]
        names = RenderedWindow.__dataclass_fields__
        found["windows"] = [RenderedWindow(**{name: window[name] for name in names}) for window in windows]
        found["answers"] = RenderedAnswers(**found["answers"]) if found["answers"] else None
        del found["record"], found["requests"]
        return cls(**found)


@dataclass(frozen=True)
class Confirmation:
    """What came out of the sources again.

    Attributes:
        confirmed: Whether every row did.
        files: Inputs that are what they were.
        rows: Rows that are the same.
        targets: Turns that are trained in them.
        statement: What is confirmed, in a sentence; None where not all of it is, or nothing is trained.
        problems: Everything that is not the same, each with its place: a changed file, a record, the manifest.
        unlisted: Problems beyond the first hundred.
        notes: What is worth knowing and no problem.
    """

    confirmed: bool
    files: int
    rows: int
    targets: int
    statement: str | None
    problems: list[dict[str, str]]
    unlisted: int
    notes: list[str]


@dataclass(frozen=True)
class Verdict:
    """What `verify` checked and found.

    Attributes:
        files: Files whose digest was compared.
        rows: Rows that were decoded.
        targets: Targets whose stop was found, by id where it is one token.
        statement: What the manifest certifies, in a sentence; None where it certifies nothing.
        problems: Everything that is wrong, each with its place; empty for a sound dataset.
        unlisted: Problems beyond the first hundred.
        confirmation: What the sources said, if they were named.
    """

    files: int
    rows: int
    targets: int
    statement: str | None
    problems: list[dict[str, str]]
    unlisted: int
    confirmation: Confirmation | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, neither in the dataset nor beside its sources."""
        return not self.problems and (self.confirmation is None or self.confirmation.confirmed)


@dataclass(frozen=True)
class TokenizerVerdict:
    """What `verify_tokenizer` found of a tokenizer's way from text to ids.

    Attributes:
        fast: The kind of tokenizer that it was recognised as; None where the reference does all the work.
        why: Why the reference does all the work; None where it does not.
        same: Texts that came out as by the reference: ids, the places of their tokens, and their text.
        difference: `text`, and what `fast` and `reference` make of it, for the first that did not; None for none.
    """

    fast: str | None
    why: str | None
    same: int
    difference: dict[str, str] | None


@dataclass(frozen=True)
class Drift:
    """How another tokenizer or chat template differs from the dataset's own.

    Attributes:
        drifted: Whether a model would see any of it.
        canaries: For each fixed dialogue of the manifest its name and the first `difference`, or None.
        changes: Special tokens and stops that are others: `name`, what is `gone`, what is `new`.
        notes: What is not the same file or version any more, without that making a difference by itself.
    """

    drifted: bool
    canaries: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    notes: list[str]


def compile(  # noqa: A001  # the verb of the product; Python's own is rarely wanted beside it
    inputs: StrPath | Iterable[StrPath], output: StrPath, *, progress: Progress | None = None, **options: object
) -> Report:
    """Compiles dialogues into a dataset of token rows.

    Args:
        inputs: Files, folders or globs; `-` is standard input.
        output: The dataset's folder.
        progress: Called about ten times a second with bytes read, bytes in all, records, compiled, rejected.
        **options: As in `CompileOptions`. `summary` may be a callable: it gets lists of `SummaryRequest` and returns
            a text for each; the inputs are then read twice, first for what is to be asked.

    Returns:
        The report. Rejected records are no exception: see `failure` and `diagnostics`.

    Raises:
        OptionsError: An option that does not exist or has a wrong value.
        TemplateError: The chat template cannot be used.
        TokenizerError: The tokenizer cannot be used.
        ShardError: The output folder already holds a dataset, or other files.
        OSError: A file or the disk.
    """
    found = _with_summaries(_inputs(inputs), fspath(output), progress, options)
    return Report.from_json(_dlgc.compile(found, progress))


def check(inputs: StrPath | Iterable[StrPath], *, progress: Progress | None = None, **options: object) -> Report:
    """Takes dialogues through all passes without writing anything.

    Args and errors are those of `compile`.
    """
    found = _with_summaries(_inputs(inputs), None, progress, options)
    return Report.from_json(_dlgc.check(found, progress))


def _with_summaries(
    inputs: list[str], output: str | None, progress: Progress | None, options: dict[str, object]
) -> str:
    """Returns the options as the core reads them; a callable has then written all summaries."""
    found, summariser = with_summariser(options)
    text = found.to_json(inputs, output)
    if summariser is not None:
        _dlgc.ask_summaries(text, summariser.answer, SUMMARY_BATCH, progress)
    return text


def convert(
    inputs: StrPath | Iterable[StrPath],
    output: StrPath,
    *,
    to: Format = "native",
    preferences: bool = False,
    progress: Progress | None = None,
    **options: object,
) -> Report:
    """Writes dialogues of any known format as JSON lines of one.

    Args:
        inputs: As for `compile`.
        output: The file; `-` is standard output.
        to: `native` keeps everything; `openai` and `sharegpt` have no place for some fields, which are counted.
        preferences: Take pairs of a better and a worse answer instead of dialogues, in the native format.
        progress: As for `compile`.
        **options: As in `CompileOptions`; those about importing, filtering and diagnostics count.

    Raises:
        OptionsError: An option that does not exist or has a wrong value; the file is there, and `overwrite` is not set.
        OSError: A file or the disk.
    """
    found = CompileOptions.of(options).to_json(_inputs(inputs), fspath(output))
    return Report.from_json(_dlgc.convert(found, to, preferences, progress))


def render(dialogue: Mapping[str, object] | str | bytes, **options: object) -> Rendered:
    """Renders and tokenises one dialogue.

    Args:
        dialogue: A record, as a mapping or as JSON text.
        **options: As in `CompileOptions`.

    Returns:
        Text, ids, labels, spans and verdicts.

    Raises:
        RejectedError: The dialogue came to nothing; its `diagnostics` say why.
        DlgcError: As for `compile`.
    """
    record = dialogue if isinstance(dialogue, str | bytes) else json.dumps(dialogue, ensure_ascii=False)
    found, summariser = with_summariser(options)
    renderer = _dlgc.Renderer(found.to_json())
    data = record.encode() if isinstance(record, str) else record
    return Rendered.from_json(_answered(lambda: renderer.render(data), summariser))


def _answered(ask: Callable[[], str], summariser: Summariser | None) -> str:
    """Returns what the core says when every summary that it asks for is there."""
    said = ask()
    asked = json.loads(said).get("requests")
    if not asked:
        return said
    if summariser is None:
        raise missing_summaries(asked)
    summariser.answer(asked)
    return ask()


@dataclass(frozen=True)
class Window:
    """What a server shows of a dialogue: the window that a compilation would have made for this turn.

    Attributes:
        messages: The messages in OpenAI's form: the head, with a summary if something is left out, and the recent ones.
            `apply_chat_template(messages, add_generation_prompt=True, tools=..., documents=...)` gives `text`.
        text: The prompt.
        input_ids: The ids of the prompt.
        sources: For each of `messages` its index in what was given; None for a summary that is a message of its own.
        summary: What is said of the messages that are left out; None where there are none, or nothing is said.
    """

    messages: list[dict[str, Any]]
    text: str
    input_ids: list[int]
    sources: list[int | None]
    summary: str | None


def window(
    messages: Sequence[Mapping[str, object]],
    *,
    max_new_tokens: int = 512,
    tools: Sequence[Mapping[str, object]] | None = None,
    documents: Sequence[Mapping[str, object]] | None = None,
    summaries: Sequence[Mapping[str, object]] | None = None,
    **options: object,
) -> Window:
    """Cuts a history for the next answer as `compile` cuts dialogues for training: the same code.

    Args:
        messages: Everything said so far; the last message is the user's, or a tool's result.
        max_new_tokens: Room for the answer: prompt and answer share `max_length`.
        tools: The tools of the dialogue; with `documents` and system messages they are in every window.
        documents: Retrieved context.
        summaries: As in a record: `upto`, the index of the last message that is covered, and `text`.
        **options: As in `CompileOptions`, and as the model was trained with: `tokenizer`, `max_length`, `summary`, ….
            The tokenizer is loaded once for each set of options.

    Returns:
        The most recent messages that fit, from a place where windows may begin.

    Raises:
        RejectedError: Nothing fits; its `diagnostics` say why.
        DlgcError: As for `compile`.
    """
    answer = {"role": "assistant", "content": "…"}
    record = {
        "messages": [*messages, answer],
        "tools": tools,
        "documents": documents,
        "summaries": summaries,
    }
    taken, summariser = with_summariser(options)
    renderer, data = _renderer(taken.to_json()), json.dumps(record, ensure_ascii=False).encode()
    found = json.loads(_answered(lambda: renderer.window(data, max_new_tokens), summariser))
    if found["text"] is None:
        errors = [item["rendered"] for item in found["diagnostics"] if item["severity"] == "error"]
        raise RejectedError("nothing fits\n" + "\n".join(errors), found["diagnostics"])
    shown = json.loads(found["messages"])
    return Window(shown, found["text"], found["input_ids"], found["sources"], found["summary"])


@lru_cache(maxsize=4)
def _renderer(options: str) -> _dlgc.Renderer:
    return _dlgc.Renderer(options)


def verify(
    shards: StrPath, *, source: StrPath | Iterable[StrPath] | None = None, progress: Progress | None = None
) -> Verdict:
    """Checks a dataset from itself: digests, ledger, lengths, text and target hashes, stop tokens.

    Args:
        shards: The dataset's folder.
        source: The files or folders that it was made from: they are compiled again with the dataset's own tokenizer,
            template and options, and every row must come out again.
        progress: Called while the sources are compiled, as by `compile`.

    Raises:
        ShardError: The folder is no dataset.
        TokenizerError: The tokenizer beside the shards cannot be loaded.
        OSError: A source cannot be read.
    """
    found = json.loads(_dlgc.verify(fspath(shards)))
    if source is None:
        return Verdict(**found)
    with tempfile.TemporaryDirectory() as scratch:  # packed rows are put back into the order of the sources
        said = _dlgc.confirm(fspath(shards), _inputs(source), scratch, progress)
    confirmation = Confirmation(**json.loads(said))
    return Verdict(**found, confirmation=confirmation)


def verify_tokenizer(tokenizer: StrPath, *, strings: int = 20_000, whole: bool = False) -> TokenizerVerdict:
    """Compares the way from text to ids that a tokenizer gets with the reference's, the `tokenizers` library.

    Args:
        tokenizer: A folder with a `tokenizer.json`, a GGUF file, or `builtin`.
        strings: How many random texts are compared, made to lie where rules meet; always the same ones.
        whole: Whether every character is compared too, in every kind of place, and pieces of every length that matters:
            some minutes.

    Raises:
        TokenizerError: The tokenizer cannot be loaded.
        OSError: It cannot be read.
    """
    return TokenizerVerdict(**json.loads(_dlgc.verify_tokenizer(fspath(tokenizer), strings, whole)))


def repack(
    shards: StrPath,
    output: StrPath,
    *,
    packing: Packing,
    overwrite: bool = False,
    shard_tokens: int = 1 << 26,
) -> dict[str, Any]:
    """Makes a dataset of the examples of another one in rows of another composition; nothing is tokenised again.

    Args:
        shards: The dataset's folder; its rows may be packed or not.
        output: The new dataset's folder.
        packing: As in `CompileOptions`; `none` gives each example a row of its own, in the order of the input.
        overwrite: Replace a dataset that is already there.
        shard_tokens: Tokens after which a shard is closed.

    Returns:
        The new manifest.

    Raises:
        OptionsError: There is no such method, the dataset has no `max_length`, or one folder lies in the other.
        ShardError: The folder is no dataset, or a damaged one; or the output folder holds one, or other files.
        OSError: A file or the disk.
    """
    options = {"packing": packing, "overwrite": overwrite, "shard_tokens": shard_tokens}
    found = _dlgc.repack(json.dumps({"shards": fspath(shards), "output": fspath(output), **options}))
    return dict(json.loads(found))


def drift(shards: StrPath, *, tokenizer: StrPath | None = None, chat_template: StrPath | None = None) -> Drift:
    """Compares a dataset with what is to serve: are the manifest's canaries still the same tokens?

    Args:
        shards: The dataset's folder. Only its manifest and its tokenizer are read.
        tokenizer: A folder with a `tokenizer.json`, and its own template unless one is given. Default: the dataset's.
        chat_template: A file, or the name of one of the tokenizer's templates.

    Raises:
        ShardError: The folder is no dataset, or its tokenizer was changed.
        TemplateError: The chat template cannot be used.
        TokenizerError: The tokenizer cannot be used.
    """
    paths = (None if path is None else fspath(path) for path in (tokenizer, chat_template))
    return Drift(**json.loads(_dlgc.drift(fspath(shards), *paths)))


def _inputs(inputs: StrPath | Iterable[StrPath]) -> list[str]:
    if isinstance(inputs, str | PathLike):
        return [fspath(inputs)]
    return [fspath(path) for path in inputs]
