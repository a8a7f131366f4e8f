"""Asking TRL: messages go in, the row comes out on which TRL's trainer would compute its loss.

A trainer is made for the one dialogue, with a model of a few weights that is never run, and its first batch is taken.
Nothing is trained, and nothing is reported or written outside a temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlgc import _dlgc
from dlgc.exceptions import DlgcError, TokenizerError
from dlgc.options import Against, CompileOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Messages = list[dict[str, Any]]
    Render = Callable[..., str]

Range = tuple[int, int]
IGNORED = -100
MARK = "\ufdd3"
"""A noncharacter: put around the content of a message, it tells where a rendering shows that."""


@dataclass(frozen=True)
class Theirs:
    """What TRL makes of a dialogue.

    Attributes:
        version: TRL's.
        assistant_only: `assistant_only_loss`, as it was in effect.
        max_length: `max_length`, as it was in effect.
        twin: Whether TRL put a training template of its own in the place of the model's.
        dated: Whether the template can print the day, which TRL takes from the clock.
        altered: Whether the dialogue changed on its way into a data set, which holds no integers beyond 64 bits.
        refused: What TRL raised under `assistant_only_loss=True`, where its default is shown instead.
        failed: What TRL raised in the end; then there is no row.
        warned: What TRL warned of.
        text: The text of the row, before `max_length`.
        input_ids: Its ids.
        labels: Its labels.
        offsets: Where each token stands in `text`, in characters.
        kept: How many of the ids the loss sees: less than all where `max_length` cuts, 0 where TRL drops the dialogue.
        contents: Where the content of each message stands in `text`; None where that cannot be told.
        turns: Where each assistant message stands in `text`, by its index.
    """

    version: str
    assistant_only: bool
    max_length: int | None
    twin: bool = False
    dated: bool = False
    altered: bool = False
    refused: str | None = None
    failed: str | None = None
    warned: list[str] = field(default_factory=list)
    text: str = ""
    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    offsets: list[Range] = field(default_factory=list)
    kept: int = 0
    contents: list[Range | None] = field(default_factory=list)
    turns: dict[int, Range] = field(default_factory=dict)

    def trains(self, at: int) -> bool:
        """Whether this token is a target of the loss. The first never is: nothing stands before it."""
        return 0 < at < self.kept and self.labels[at] != IGNORED

    @property
    def trained(self) -> int:
        """How many tokens are trained."""
        return sum(self.trains(at) for at in range(self.kept))


@dataclass(frozen=True)
class _Made:
    """What a trainer has: the record as its data set holds it, the row of its batch, the template if that is TRL's."""

    record: dict[str, Any]
    input_ids: list[int]
    labels: list[int]
    template: str | None
    max_length: int | None


def given(messages: Messages, record: Mapping[str, Any], options: Mapping[str, object]) -> dict[str, Any]:
    """Returns a record as TRL reads it: messages, tools, template arguments, and documents among the arguments."""
    tools, kwargs = record.get("tools"), options.get("template_kwargs")
    if isinstance(tools, str):
        tools = json.loads(tools) if tools.strip() else None
    arguments = {**(kwargs if isinstance(kwargs, dict) else {}), **(record.get("chat_template_kwargs") or {})}
    if record.get("documents"):
        arguments["documents"] = record["documents"]
    found: dict[str, Any] = {"messages": messages}
    if tools:
        found["tools"] = [_wrapped(tool) for tool in tools]
    if arguments:
        found["chat_template_kwargs"] = arguments
    return found


def _wrapped(tool: dict[str, Any]) -> dict[str, Any]:
    bare = "name" in tool and not {"type", "function"} & set(tool)
    return {"type": "function", "function": tool} if bare else tool


def ask(record: dict[str, Any], settings: Against, options: Mapping[str, object]) -> Theirs:
    """Lets TRL prepare a record, with loss on the assistant only where that is asked for and TRL does not refuse it.

    Raises:
        TokenizerError: Transformers does not load the tokenizer.
        DlgcError: TRL behaves in a way that cannot be compared.
    """
    length = options.get("max_length", "auto")
    limit = {} if length == "auto" else {"max_length": None if length == "none" else length}
    with _quiet() as warned, _tokenizer(options) as tokenizer:
        refused = None
        if settings == "trl":
            found = _prepare(record, tokenizer, assistant_only_loss=True, **limit)
            if found.failed is None:
                return replace(found, warned=list(dict.fromkeys(warned)))
            refused = found.failed
            warned.clear()
        found = _prepare(record, tokenizer, assistant_only_loss=False, **limit)
        return replace(found, warned=list(dict.fromkeys(warned)), refused=refused)


def _prepare(record: dict[str, Any], tokenizer: Any, **settings: Any) -> Theirs:  # noqa: ANN401  # theirs
    import trl

    only = settings["assistant_only_loss"]
    try:
        made = whole = _make(record, tokenizer, **settings)
        if made.max_length is not None and len(made.input_ids) in (0, made.max_length):
            whole = _make(record, tokenizer, **{**settings, "max_length": None})
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what the user of TRL would meet
        limit = settings.get("max_length", trl.SFTConfig.max_length)
        return Theirs(trl.__version__, only, limit, failed=f"{type(error).__name__}: {error}")
    kept = len(made.input_ids)
    if (whole.input_ids[:kept], whole.labels[:kept]) != (made.input_ids, made.labels):
        raise DlgcError(f"TRL {trl.__version__} cuts rows in a way that is not known here; please report it")
    messages, arguments = whole.record["messages"], whole.record.get("chat_template_kwargs", {})

    def render(shown: Messages, **more: object) -> str:
        context = {"tools": whole.record.get("tools"), "chat_template": whole.template, "tokenize": False}
        return str(tokenizer.apply_chat_template(shown, **context, **arguments, **more))

    text = render(messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] != whole.input_ids:
        raise DlgcError(f"TRL {trl.__version__} makes ids that its template does not give; please report it")
    contents = _contents(messages, text, render)
    assistants = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    return Theirs(
        version=trl.__version__,
        assistant_only=only,
        max_length=made.max_length,
        twin=whole.template is not None,
        dated="strftime_now" in str(whole.template or tokenizer.chat_template),
        altered=whole.record != record,
        text=text,
        input_ids=whole.input_ids,
        labels=whole.labels,
        offsets=[(start, end) for start, end in encoded["offset_mapping"]],
        kept=kept,
        contents=contents,
        turns={index: _turn(index, messages, text, contents, render) for index in assistants},
    )


def _make(record: dict[str, Any], tokenizer: Any, **settings: object) -> _Made:  # noqa: ANN401  # transformers'
    """Makes a trainer for the one record, and takes its first batch."""
    from datasets import Dataset, Features, Json, List
    from transformers import AutoModelForCausalLM, LlamaConfig
    from trl import SFTConfig, SFTTrainer

    # As TRL advises: without this type, Arrow fills calls and schemas with nulls that nobody wrote.
    types = {name: List(Json()) if isinstance(value, list) else Json() for name, value in record.items()}
    sizes = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), 8)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1))
    # These have nothing to do with data: with them a trainer starts on any machine.
    machine = {"use_cpu": True, "bf16": False, "report_to": "none", "dataloader_pin_memory": False}
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(output_dir=folder, **machine, **settings)
        dataset = Dataset.from_list([record], features=Features(types))
        trainer = SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
        ids: list[int] = []
        labels: list[int] = []
        if len(trainer.train_dataset):
            batch = next(iter(trainer.get_train_dataloader()))
            ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return _Made(dataset[0], ids, labels, trainer.chat_template, config.max_length)


@contextlib.contextmanager
def _tokenizer(options: Mapping[str, object]) -> Iterator[Any]:
    """Yields tokenizer and template as they lie beside shards, which is how dlgc itself hands them to TRL."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        nothing, shards = Path(name) / "nothing.jsonl", Path(name) / "shards"
        nothing.touch()
        _dlgc.compile(CompileOptions.of(dict(options)).to_json([str(nothing)], str(shards)))
        try:
            tokenizer = AutoTokenizer.from_pretrained(shards / "tokenizer")
        except (OSError, ValueError) as error:
            raise TokenizerError(f"transformers does not load the tokenizer: {error}") from error
        yield tokenizer


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keeps bars and talk of the libraries off the terminal; yields what TRL warns of."""
    import dlgc.train  # noqa: F401  # it keeps TRL from reporting its use, if it comes before it

    import datasets  # isort: skip
    from transformers.utils import logging as transformers_logging

    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]  # all it does
    logger = logging.getLogger("trl")
    bars, verbosity = not datasets.are_progress_bars_disabled(), transformers_logging.get_verbosity()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    # Which kernels a processor lacks, said as TRL imports it, has nothing to do with what TRL makes of a record.
    kernels = logging.getLogger("bitsandbytes")
    level = kernels.level
    kernels.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield warned
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()
        kernels.setLevel(level)
        logger.removeHandler(handler)
        logger.propagate = propagates


# Where messages stand in the text of a row.


def said(message: Mapping[str, Any]) -> str:
    """The content of a message without white space around it; empty where there is none, or where it has parts."""
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1:
        content = content[0].get("text")
    return content.strip() if isinstance(content, str) else ""


def gap(contents: list[Range | None], index: int, length: int) -> Range:
    """The part of a text of this length between the contents before a message and those after it."""
    low = max((place[1] for place in contents[:index] if place), default=0)
    return low, min((place[0] for place in contents[index + 1 :] if place and place[0] >= low), default=length)


def common(left: Any, right: Any) -> int:  # noqa: ANN401  # texts or lists of ids
    """How many letters or ids two have in common from their start."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))


def _contents(messages: Messages, text: str, render: Render) -> list[Range | None]:
    """Finds the contents of messages, by marks around them that change nothing else of the text."""
    found = _marked(messages, range(len(messages)), text, render)
    if found is None:
        alone = [_marked(messages, [index], text, render) or {} for index in range(len(messages))]
        found = {index: place for places in alone for index, place in places.items()}
    return [found.get(index) for index in range(len(messages))]


def _marked(messages: Messages, which: range | list[int], text: str, render: Render) -> dict[int, Range] | None:
    """The contents that can be told; None where marks change the text."""
    try:
        shown = render([_mark(message, index) if index in which else message for index, message in enumerate(messages)])
    except Exception:  # noqa: BLE001  # a template may look into what is said
        return None
    plain = ""
    at = 0
    places: dict[str, int] = {}
    for match in re.finditer(f"{MARK}([0-9]+[<>]){MARK}", shown):
        plain += shown[at : match.start()]
        at = match.end()
        places[match[1]] = -1 if match[1] in places else len(plain)
    if plain + shown[at:] != text:
        return None
    found = {index: (places.get(f"{index}<", -1), places.get(f"{index}>", -1)) for index in which}
    return {index: place for index, place in found.items() if -1 < place[0] < place[1]}


def _mark(message: dict[str, Any], index: int) -> dict[str, Any]:
    text, content = said(message), message.get("content")
    if not text:
        return message
    marked = f"{MARK}{index}<{MARK}{text}{MARK}{index}>{MARK}"
    if isinstance(content, str):
        return {**message, "content": content.replace(text, marked, 1)}
    return {**message, "content": [{**part, "text": part["text"].replace(text, marked, 1)} for part in content or []]}


def _turn(index: int, messages: Messages, text: str, contents: list[Range | None], render: Render) -> Range:
    """Where a message stands: from where its prompt ends, to where a rendering without the later ones ends."""
    low, high = gap(contents, index, len(text))
    content = contents[index]
    try:
        start = common(text, render(messages[:index], add_generation_prompt=True))
        end = common(text, render(messages[: index + 1]))
    except Exception:  # noqa: BLE001  # a template may refuse a part of a dialogue
        start = end = -1
    # Where a template changes history, the two leave the text too early.
    if not low <= start <= (content[0] if content else high):
        start = content[0] if content else low
    if not (content[1] if content else start) <= end <= high:
        end = content[1] if content else start
    return start, end
