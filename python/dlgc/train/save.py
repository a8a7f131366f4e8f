"""What a training leaves behind: weights by TRL; tokenizer, template and stop ids of the shards; `dlgc.json`."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import dlgc
from dlgc.train.checks import RESULT

if TYPE_CHECKING:
    from pathlib import Path

    from dlgc.train.data import Shards
    from dlgc.train.model import Base
    from dlgc.train.options import Options, Trained

DESCRIPTIONS = ("adapter_config.json", "config.json", "README.md")
"""Files into which TRL and peft write the path of the base model."""


def scrub(folder: Path, base: Base) -> None:
    """Replaces the absolute path of the base model by its name, here and in the checkpoints."""
    if base.public_name == base.name:
        return
    written_here = [folder, *folder.glob("checkpoint-*")]
    for path in (place / name for place in written_here for name in DESCRIPTIONS if (place / name).is_file()):
        text = path.read_text(encoding="utf-8")
        clean = text
        for written in (base.name, json.dumps(base.name)[1:-1]):  # as it is, and as JSON and YAML escape it
            clean = clean.replace(written, base.public_name)
        if clean != text:
            path.write_text(clean, encoding="utf-8")


def finish(options: Options, shards: Shards, base: Base, trained: Trained) -> None:
    """Completes the output: the files that a server needs, and where everything came from."""
    folder = options.output_dir
    shutil.copytree(shards.tokenizer, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    scrub(folder, base)
    partial = folder / f"{RESULT}.partial"
    found = provenance(options, shards, base, trained)
    partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / RESULT)


def provenance(options: Options, shards: Shards, base: Base, trained: Trained) -> dict[str, Any]:
    """Returns what `dlgc.json` says."""
    manifest = shards.manifest
    data = ("demo", "versions", "digests", "splits", "ledger", "certificate", "diagnostics", "stop_ids", "max_length")
    quantised = next((n for n in (4, 8) if options.loading.get(f"load_in_{n}bit")), None)
    return {
        "dlgc": dlgc.__version__,
        "method": "sft",
        "model": {
            "base": "built-in" if base.builtin else base.public_name,
            "trained": "full" if options.full else "adapter",
            "base_bits": quantised,
        },
        "steps": trained.steps,
        "first_loss": trained.first_loss,
        "last_loss": trained.last_loss,
        "data": {
            "manifest_sha256": hashlib.sha256((shards.folder / "manifest.json").read_bytes()).hexdigest(),
            **{name: manifest[name] for name in data if name in manifest},
            "inputs": [{name: source[name] for name in ("sha256", "records")} for source in manifest["inputs"]],
        },
    }
