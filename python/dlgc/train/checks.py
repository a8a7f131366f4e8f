"""What is refused before the first step, each with both sides of what does not fit and with what to do."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch

from dlgc.exceptions import OptionsError, ShardError
from dlgc.train.model import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlgc.train.data import Shards
    from dlgc.train.model import Base
    from dlgc.train.options import Options

RESULT = "dlgc.json"
"""Is written last into the output: where it is, there is a trained model."""


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
    if not size["rows"] or not size["trained_tokens"]:
        raise ShardError(
            f"`{shards.folder}` has nothing to train: {size['rows']} rows, {size['trained_tokens']} trained tokens"
        )
    if len(shards.rows) != size["rows"]:
        raise ShardError(
            f"`{shards.folder}`: the manifest says {size['rows']} rows, the shards hold {len(shards.rows)}\n"
            "hint: `dlgc.verify` says which file is damaged"
        )
    if manifest["options"].get("packing", "none") != "none" and not shards.packed:
        raise ShardError(
            f"`{shards.folder}` is packed, but its rows have no `seq_lengths`: examples would see each other\n"
            "hint: `dlgc verify` says which file is damaged"
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


def batch(collated: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """What the model gets of a row is the row."""
    for name in ("input_ids", "labels"):
        tensor, values = collated[name], row[name].tolist()
        if tensor.dtype != torch.int64 or tensor[0].tolist() != values:
            raise ShardError(
                f"expected `{name}` of {len(values)} int64 as in the shard, found {tensor.dtype} of {tensor.shape[1]}\n"
                "hint: this version of TRL treats compiled rows in a new way; please report it"
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
