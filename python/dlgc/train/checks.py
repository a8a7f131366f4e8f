"""What is refused before the first step, each with both sides of what does not fit and with what to do."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import tokenizers
import torch

from dlgc.exceptions import OptionsError, ShardError
from dlgc.train.data import LENGTH
from dlgc.train.methods import COLUMNS, METHODS, UNTRAINED
from dlgc.train.model import TEMPLATES
from dlgc.train.trainers import forward_inputs, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dlgc.train.data import Shards
    from dlgc.train.model import Base
    from dlgc.train.options import Options
    from dlgc.train.trainers import Row

RESULT = "dlgc.json"
"""Is written last into the output: where it is, there is a trained model."""
DAMAGED = "hint: `dlgc verify` says which file is damaged"
LEAK = 0.05
"""Relative difference of logits above which examples see each other: rounding in bfloat16 stays below 0.02."""


def output(options: Options) -> None:
    """A trained model is not overwritten, and neither is the one that training begins with."""
    folder = options.output_dir
    if (folder / RESULT).exists() and not options.resume:
        raise OptionsError(
            f"`{folder}` holds a trained model already\n"
            "hint: name another `--output_dir`, remove that one, or go on with `--resume_from_checkpoint true`"
        )
    taken = {"the model": options.model, "the data": options.data}
    for what, path in taken.items():
        if path is not None and Path(path).expanduser().resolve() == folder.resolve():
            raise OptionsError(f"`{folder}` is {what}: the result needs a folder of its own\nhint: `--output_dir`")


def dataset(shards: Shards, options: Options) -> None:
    """The dataset has something to train, and nothing in it is known to be wrong."""
    size, manifest = shards.size, shards.manifest
    _fits(shards, options)
    if not size["rows"] or not size["trained_tokens"]:
        raise ShardError(
            f"`{shards.folder}` has nothing to train: {size['rows']} rows, {size['trained_tokens']} trained tokens"
        )
    if len(shards.rows) != size["rows"]:
        raise ShardError(
            f"`{shards.folder}`: the manifest says {size['rows']} rows, the shards hold {len(shards.rows)}\n{DAMAGED}"
        )
    if manifest["options"].get("packing", "none") != "none" and not shards.packed:
        raise ShardError(
            f"`{shards.folder}` is packed, but its rows have no `seq_lengths`: examples would see each other\n{DAMAGED}"
        )
    count = manifest["diagnostics"].get("stop-not-a-token")
    if count:
        raise ShardError(
            f"`{shards.folder}`: {count} times `stop-not-a-token`: the tokenizer has no single id for the text that "
            "ends a turn, so the model would not learn to stop\n"
            "hint: compile with the chat template that belongs to the tokenizer"
        )
    if manifest["demo"] and options.model is not None:
        raise ShardError(
            f"`{shards.folder}` is a demo: its ids are those of the built-in tokenizer, and mean something else to "
            f"`{options.model}`\nhint: compile again with `tokenizer={options.model!r}`"
        )


def _fits(shards: Shards, options: Options) -> None:
    """The rows are of the kind that the method trains on, with every column."""
    kind, method = shards.kind, options.how
    if kind != method.rows:
        fitting = [other.name for other in METHODS.values() if other.rows == kind]
        does = f"`--method {'`, `'.join(fitting)}`" if fitting else "none of the methods of this version"
        raise OptionsError(
            f"`--method {method.name}` trains on rows of kind `{method.rows}`, and those of `{shards.folder}` are "
            f"`{kind}`\nhint: they are for {does}; or `dlgc compile --rows {method.rows}`"
        )
    missing = [name for name in COLUMNS[kind] if name not in shards.rows.column_names and name != "seq_lengths"]
    if missing:
        raise ShardError(
            f"the rows of `{shards.folder}` have no `{'`, `'.join(missing)}`: what is trained would not be what was "
            f"compiled\n{DAMAGED}"
        )


def rows(shards: Shards, splits: Iterable[str]) -> None:
    """Every row can be trained, and its labels are its own; all of them are looked at, in columns."""
    for split in splits:
        wrong = shards.frame(split).select(**{name: test.sum() for name, test in _wrong(shards).items()}).collect()
        for what, count in wrong.row(0, named=True).items():
            if count:
                raise ShardError(f"`{shards.folder}`, split `{split}`: {count} rows {what}\n{DAMAGED}")


def _wrong(shards: Shards) -> dict[str, pl.Expr]:
    """What would be wrong with rows, in words, and where it is so."""
    longest = pl.lit(shards.manifest["max_length"], pl.Int64)
    found = {f"are longer than `max_length` {shards.manifest['max_length']}": LENGTH[shards.kind] > longest}
    if shards.kind == "sft":
        found |= _wrong_labels("the row", "input_ids", "labels")
        if shards.packed:
            covered = pl.col("seq_lengths").list.sum()
            found["have `seq_lengths` that do not add up to their length"] = covered != LENGTH["sft"]
        return found
    found["have no prompt"] = pl.col("prompt_ids").list.len() == 0
    for side in ("completion",) if shards.kind == "kto" else ("chosen", "rejected"):
        found |= _wrong_labels(f"`{side}`", f"{side}_ids", f"{side}_labels")
    return found


def _wrong_labels(what: str, ids: str, labels: str) -> dict[str, pl.Expr]:
    trained = pl.col(labels).list.max().fill_null(UNTRAINED) > UNTRAINED
    return {
        f"have no trained token in {what}": ~trained,
        f"have fewer or more labels than ids in {what}": pl.col(ids).list.len() != pl.col(labels).list.len(),
    }


def asked_again(shards: Shards, options: Options) -> None:
    """Options of the compiler that are given once more say the same as the dataset."""
    length, asked = shards.manifest["max_length"], options.max_seq_length
    if asked is not None and asked != length:
        raise OptionsError(
            f"`max_seq_length` is {asked}, but `{shards.folder}` was compiled with `max_length` {length}\n"
            "hint: leave it out, or compile again"
        )
    if options.chat_template is None:
        return
    path = Path(options.chat_template)
    if not path.is_file():
        raise OptionsError(
            f"`chat_template` is `{options.chat_template}`, which is no file that could be compared with that of "
            f"`{shards.folder}`, {_short(shards.manifest['digests']['template'])}\n"
            "hint: leave it out: the template was chosen when the dataset was compiled"
        )
    found = _sha256(path)
    if found != shards.manifest["digests"]["template"]:
        raise OptionsError(
            f"`chat_template` `{path}` is {_short(found)}, but `{shards.folder}` was compiled with "
            f"{_short(shards.manifest['digests']['template'])}\nhint: leave it out, or compile again"
        )


def base(model: Base, shards: Shards, options: Options) -> None:
    """The model has an embedding for every id, a position for every token, and the same tokenizer and template."""
    config = model.config()
    wanted = shards.manifest["vocabulary_size"]
    if config.vocab_size < wanted:
        raise ShardError(
            f"`{model.name}` has {config.vocab_size} embeddings, but the ids of `{shards.folder}` go up to "
            f"{wanted - 1}\n"
            "hint: compile with the tokenizer of the model"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < shards.longest:
        raise ShardError(
            f"`{model.name}` has {positions} positions, but the longest row of `{shards.folder}` has {shards.longest} "
            f"tokens\nhint: compile again with `max_length={positions}`"
        )
    if model.builtin:
        return
    theirs, ours = model.file("tokenizer.json"), shards.manifest["digests"]["tokenizer"]
    if theirs is None:
        sys.stderr.write(f"warning: `{model.name}` has no tokenizer.json that could be compared with the shards'\n")
    if theirs is not None and not options.allow_tokenizer_mismatch and _sha256(theirs) != ours:
        raise ShardError(
            f"the tokenizer.json of `{model.name}` is {_short(_sha256(theirs))}, that of `{shards.folder}` is "
            f"{_short(ours)}: ids may mean something else to this model\n"
            "hint: compile with the tokenizer of the model; if both give the same ids, `--allow_tokenizer_mismatch`"
        )
    if not options.allow_tokenizer_mismatch:
        _special_tokens(model, shards)
    templates, used = model.chat_templates(), _templates(shards)
    if templates and not options.allow_template_mismatch and templates != used:
        differs = next(name for name in ("default", "tool_use") if templates.get(name) != used.get(name))
        digests = [_short(_digest(of[differs].encode())) if differs in of else "none" for of in (templates, used)]
        which = "chat template" if differs == "default" else f"chat template `{differs}`"
        raise ShardError(
            f"the {which} of `{model.name}` is {digests[0]}, that of `{shards.folder}` is {digests[1]}: a server would "
            "show the model other prompts than those it was trained on\nhint: compile with the template of the model; "
            "where the template of the shards will be served, `--allow_template_mismatch`"
        )


def _special_tokens(model: Base, shards: Shards) -> None:
    """Both tokenizers begin, end and pad with the same: transformers takes that from the configuration."""
    path = model.file("tokenizer_config.json")
    ours = shards.tokenizer / "tokenizer_config.json"
    if path is None or not ours.is_file():
        return
    theirs, found = (json.loads(file.read_text(encoding="utf-8")) for file in (path, ours))
    for name in ("bos_token", "eos_token", "pad_token"):
        one, other = _content(theirs.get(name)), _content(found.get(name))
        if one != other:
            raise ShardError(
                f"the `{name}` of `{model.name}` is {one!r}, that of `{shards.folder}` is {other!r}\n"
                "hint: compile with the tokenizer of the model, or `--allow_tokenizer_mismatch`"
            )


def _content(token: Any) -> str | None:  # noqa: ANN401  # what JSON holds
    return token.get("content") if isinstance(token, dict) else token


def served(tokenizer: Any, shards: Shards, options: Options) -> None:  # noqa: ANN401  # transformers ships no types
    """What transformers makes of the tokenizer gives the ids of the shards: that is what a server loads.

    For some classes `AutoTokenizer` builds another tokenizer than `tokenizer.json` describes.
    """
    if options.allow_tokenizer_mismatch:
        return
    reference = tokenizers.Tokenizer.from_file(str(shards.tokenizer / "tokenizer.json"))
    messages = (
        message for canary in shards.manifest["canaries"] for message in json.loads(canary["record"])["messages"]
    )
    said = [message["content"] for message in messages if isinstance(message.get("content"), str)]
    for text in [*said, *(f"{tokenizer.eos_token}{text}" for text in said)]:
        ours = reference.encode(text, add_special_tokens=False).ids
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ours != theirs:
            was, now = (" ".join(tokenizer.convert_ids_to_tokens(ids[:8])) for ids in (ours, theirs))
            raise ShardError(
                f"`AutoTokenizer` reads the tokenizer of `{shards.folder}` otherwise than its `tokenizer.json` says: "
                f"{text[:24]!r} begins with `{now}`, not `{was}`, and a server would show the model other ids than it "
                "was trained on\nhint: `TokenizersBackend` as `tokenizer_class` in tokenizer_config.json makes "
                "transformers read the file as it is; where the server does so anyway, `--allow_tokenizer_mismatch`"
            )


def processes(found: int, environment: Mapping[str, str]) -> None:
    """As many processes train as were asked for: `accelerate launch --cpu` starts one and does not say so."""
    asked = environment.get("WORLD_SIZE")
    if asked is None and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= set(environment):
        asked = "several"  # what that launcher sets for more than one process is the address, not the number
    if asked is not None and asked != str(found):
        raise OptionsError(
            f"{asked} processes were asked for, but {found} trains\nhint: `torchrun --nproc_per_node N -m dlgc.train …`"
        )


def batch(trainer: Any, row: Row, kind: str) -> None:  # noqa: ANN401  # any of TRL's
    """What the model gets of a row is the row: its ids, and as trained exactly what its labels say."""
    for tensors, lists in zip(shown(trainer, row), sides(row, kind), strict=True):
        for what, tensor, values in zip(("ids", "labels"), tensors, lists, strict=True):
            found = tensor[: len(values)]
            if found.dtype != torch.int64 or found.tolist() != values:
                raise ShardError(
                    f"a batch does not hold the {what} of its row as in the shard: {found.dtype}, {len(found)} "
                    f"tokens; expected {torch.int64}, {len(values)} tokens\n"
                    "hint: this version of TRL treats compiled rows in a new way; please report it"
                )


def sides(row: Mapping[str, Any], kind: str) -> list[tuple[list[int], list[int]]]:
    """Returns what a model sees of a row, as ids and labels: one sequence, or the prompt with each answer."""
    if kind == "sft":
        return [(list(map(int, row["input_ids"])), list(map(int, row["labels"])))]
    prompt = row["prompt_ids"]
    answers = ("completion",) if kind == "kto" else ("chosen", "rejected")
    return [(prompt + row[f"{answer}_ids"], [UNTRAINED] * len(prompt) + row[f"{answer}_labels"]) for answer in answers]


def isolated(trainer: Any, shards: Shards) -> None:  # noqa: ANN401  # a trl.SFTTrainer
    """The examples of a packed row do not see each other: this model is asked, with this attention.

    The last example is shown alone and behind the others. Where they leak, it comes out differently.
    """
    several = pl.arg_where(pl.col("seq_lengths").list.len() > 1).first()
    place = shards.frame().select(several).collect().item()
    if place is None:
        return
    row = shards.rows[place]
    length = int(row["seq_lengths"][-1])
    names = ("input_ids", "labels", "seq_lengths")
    alone = {name: row[name][-1:] if name == "seq_lengths" else row[name][-length:] for name in names}
    training = trainer.model.training
    trainer.model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        one, other = (
            trainer.model(**inputs, use_cache=False).logits[0, -length:].float()
            for inputs, _ in (forward_inputs(trainer, [part]) for part in (alone, row))
        )
    trainer.model.train(training)
    difference = float((one - other).norm() / one.norm())
    if difference > LEAK:
        attention = getattr(trainer.model.config, "_attn_implementation", "of its own")
        raise ShardError(
            f"the examples of packed rows see each other in this model, with attention `{attention}`: behind others "
            f"the last example of a row differs by {difference:.0%} from what it is alone\n"
            "hint: `dlgc repack SHARDS -o OTHER --packing none`, or another `--attn_implementation`"
        )


def _templates(shards: Shards) -> dict[str, str]:
    paths = {name: shards.tokenizer / path for name, path in TEMPLATES.items()}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}


def _sha256(path: Path) -> str:
    return _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(digest: str) -> str:
    return f"sha256 {digest[:12]}…"
