"""What a training leaves behind: TRL's weights; tokenizer, template and stop ids of the shards; a card; `dlgc.json`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlgc
from dlgc.train import plot
from dlgc.train.checks import RESULT

if TYPE_CHECKING:
    from dlgc.train.data import Shards
    from dlgc.train.model import Base
    from dlgc.train.options import Options, Trained

DESCRIPTIONS = ("adapter_config.json", "config.json", "README.md")
"""Files into which TRL and peft write the path of the base model."""
ARGUMENTS = "training_args.bin"
"""A pickle with paths of this machine, which nothing reads."""
MERGED = "merged"
"""The folder of the model that adapter and base became."""
CURVES = "loss.svg"

CARD = """\
---
{front}---

# {name}

{sentence}

## How it was trained

| | |
|---|---|
{facts}

![The loss, step by step]({curves})

{evaluation}## What it was trained on

{data}

`dlgc.json` has the digests: of the manifest of the dataset, of its sources, tokenizer, template and options.
The tokenizer and the chat template beside this card are those that the rows were made with; serve the model with them.
"""


def scrub(folder: Path, base: Base) -> None:
    """Replaces the absolute path of the base model by its name, here, in checkpoints and in the merged model."""
    if base.public_name == base.name:
        return
    written_here = [folder, folder / MERGED, *folder.glob("checkpoint-*")]
    for path in (place / name for place in written_here for name in DESCRIPTIONS if (place / name).is_file()):
        text = path.read_text(encoding="utf-8")
        clean = text
        for written in (base.name, json.dumps(base.name)[1:-1]):  # as it is, and as JSON and YAML escape it
            clean = clean.replace(written, base.public_name)
        if clean != text:
            path.write_text(clean, encoding="utf-8")


def finish(options: Options, shards: Shards, base: Base, trained: Trained, history: list[dict[str, float]]) -> None:
    """Completes the output: the files that a server needs, and where everything came from."""
    folder = options.output_dir
    found = provenance(options, shards, base, trained)
    places = [folder, folder / MERGED] if options.merge else [folder]
    for place in places:
        shutil.copytree(shards.tokenizer, place, dirs_exist_ok=True, copy_function=shutil.copyfile)
        _write(place / "generation_config.json", _generation(options, shards))
        (place / "README.md").write_text(_card(options, shards, base, trained, found), encoding="utf-8")
        (place / CURVES).write_text(plot.svg(plot.curves(history), f"loss: {folder.name}"), encoding="utf-8")
    scrub(folder, base)
    (folder / ARGUMENTS).unlink(missing_ok=True)
    for place in reversed(places):
        partial = place / f"{RESULT}.partial"
        _write(partial, found)
        partial.replace(place / RESULT)


def merge(options: Options, base: Base, loading: Any) -> None:  # noqa: ANN401  # a trl.ModelConfig
    """Saves adapter and base model as one. A base that was trained in few bits is merged as it was before."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    few = loading.load_in_4bit or loading.load_in_8bit
    dtype = "auto" if few else loading.dtype
    whole = AutoModelForCausalLM.from_pretrained(base.name, revision=base.revision, dtype=dtype)
    merged = PeftModel.from_pretrained(whole, str(options.output_dir)).merge_and_unload()
    merged.save_pretrained(options.output_dir / MERGED)


def manifest_digest(shards: Shards) -> str:
    """Returns the SHA-256 of the manifest, and with it of everything that it lists."""
    return hashlib.sha256((shards.folder / "manifest.json").read_bytes()).hexdigest()


def provenance(options: Options, shards: Shards, base: Base, trained: Trained) -> dict[str, Any]:
    """Returns what `dlgc.json` says."""
    manifest = shards.manifest
    data = ("demo", "versions", "digests", "splits", "ledger", "certificate", "diagnostics", "stop_ids", "max_length")
    quantised = next((n for n in (4, 8) if options.loading.get(f"load_in_{n}bit")), None)
    return {
        "dlgc": dlgc.__version__,
        "method": options.how.name,
        "model": {
            "base": "built-in" if base.builtin else base.public_name,
            "trained": "full" if options.full else "adapter",
            "base_bits": quantised,
        },
        "steps": trained.steps,
        "first_loss": trained.first_loss,
        "last_loss": trained.last_loss,
        "evaluation": trained.evaluation,
        "data": {
            "manifest_sha256": manifest_digest(shards),
            "rows": shards.kind,
            **{name: manifest[name] for name in data if name in manifest},
            "inputs": [{name: source[name] for name in ("blake3", "records")} for source in manifest["inputs"]],
        },
    }


def _write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _generation(options: Options, shards: Shards) -> dict[str, Any]:
    """`generation_config.json`: that of the shards, their stop ids, and how to sample where that was asked for."""
    asked = {name: getattr(options, name) for name in ("temperature", "top_p", "repetition_penalty")}
    given = {name: value for name, value in asked.items() if value is not None}
    if {"temperature", "top_p"} & set(given):
        given["do_sample"] = given.get("temperature") != 0
        if not given["do_sample"]:
            del given["temperature"]  # what greedy decoding is called elsewhere
    stops = shards.manifest["stop_ids"]
    ends = {"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {}
    return {**shards.generation, **ends, **given}


def _card(options: Options, shards: Shards, base: Base, trained: Trained, found: dict[str, Any]) -> str:
    size, manifest, training = shards.size, shards.manifest, options.training
    name = found["model"]["base"]
    library = "transformers" if options.full else "peft"
    on_hub = not Path(base.name).is_dir()
    front = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["dlgc", "trl", options.how.name]}
    how = "Every weight of" if options.full else "An adapter (LoRA) for"
    facts = {
        "method": f"{options.how.title}, by TRL",
        "steps": f"{trained.steps:,}",
        "learning rate": f"{training.get('learning_rate', 'the default of TRL')}",
        "loss": f"{trained.first_loss:.4f} at first, {trained.last_loss:.4f} at last",
    }
    if not options.full:
        facts["adapter"] = f"r {options.loading['lora_r']}, alpha {options.loading['lora_alpha']}"
    records = manifest["ledger"]["records"]
    data = (
        f"{size['rows']:,} rows with {size['tokens']:,} tokens, of which {size['trained_tokens']:,} were trained, "
        f"compiled by dlgc from {records['read']:,} records: {records['imported']:,} imported, {records['rejected']:,} "
        f"rejected. Manifest: sha256 `{found['data']['manifest_sha256']}`."
    )
    evaluation = ""
    if trained.evaluation:
        groups = ((by, name, values) for by, groups in trained.evaluation.items() for name, values in groups.items())
        lines = [
            f"| {by.removeprefix('by_')} {name} | {', '.join(f'{key} {value:,.4g}' for key, value in values.items())} |"
            for by, name, values in groups
        ]
        evaluation = "\n".join(["## On held-out rows", "", "| | |", "|---|---|", *lines, "", ""])
    return CARD.format(
        front="".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items())
        + (f"base_model: {json.dumps(name)}\n" if on_hub else ""),
        name=options.output_dir.name,
        sentence=f"{how} `{name}`, by {options.how.title}.",
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        curves=CURVES,
        evaluation=evaluation,
        data=data,
    )
