"""Training: a dataset goes in, an adapter or a model comes out. The training itself is TRL's.

    from dlgc.train import sft
    sft("shards/", model="models/qwen3", output_dir="runs/qwen3")

For pairs of answers there are `dpo` and `simpo`, as experiments `kto` and `orpo`; all take the same arguments.
The same on the command line is `python -m dlgc.train shards/ --model models/qwen3 --output_dir runs/qwen3`. What is
done here: options are read, shards opened, what does not fit together refused, and what comes out is saved with the
tokenizer, template and stop ids that the shards were made with.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dlgc.train.options import Options, Trained

if TYPE_CHECKING:
    from dlgc.options import StrPath

# TRL reports each training, and the Hub's client what it is asked for, unless this is set before they are loaded.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "huggingface_hub.constants" in sys.modules and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1":
    sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]  # by name

__all__ = ["Options", "Trained", "dpo", "kto", "orpo", "sft", "simpo"]


def sft(
    shards: StrPath, *, model: StrPath | None = None, output_dir: StrPath | None = None, **options: object
) -> Trained:
    """Trains a model on a dataset (SFT): by LoRA, or every weight with `full=True`.

    Args:
        shards: The dataset's folder; or raw dialogues, which are compiled first.
        model: A folder, or a name on the Hugging Face Hub. Without it a tiny random model is trained, to try the road.
        output_dir: Where adapter or model are saved; `runs/` and the name of the method unless said otherwise.
        **options: As on the command line: those of `trl.SFTConfig` and `trl.ModelConfig`, and dlgc's own.

    Returns:
        What came of it.

    Raises:
        OptionsError: An option that does not exist, or that does not fit the dataset or the model.
        ShardError: The dataset is none, is empty, or must not be trained.
        ImportError: Torch, transformers or TRL are not installed.
        OSError: A file, the disk, or a model that is not there.
    """
    return _run("sft", shards, model, output_dir, options)


def dpo(
    shards: StrPath, *, model: StrPath | None = None, output_dir: StrPath | None = None, **options: object
) -> Trained:
    """Trains a model on pairs of answers (DPO), with any `loss_type` of TRL's.

    Arguments, result and exceptions as for `sft`; options are those of `trl.DPOConfig`.
    """
    return _run("dpo", shards, model, output_dir, options)


def simpo(
    shards: StrPath, *, model: StrPath | None = None, output_dir: StrPath | None = None, **options: object
) -> Trained:
    """Trains a model on pairs of answers without a reference model (SimPO): `beta`, and `simpo_gamma` as the margin.

    Arguments, result and exceptions as for `sft`; options are those of `trl.DPOConfig`.
    """
    return _run("simpo", shards, model, output_dir, options)


def kto(
    shards: StrPath, *, model: StrPath | None = None, output_dir: StrPath | None = None, **options: object
) -> Trained:
    """Trains a model on answers with a verdict (KTO); experimental.

    Arguments, result and exceptions as for `sft`; options are those of `trl.KTOConfig`.
    """
    return _run("kto", shards, model, output_dir, options)


def orpo(
    shards: StrPath, *, model: StrPath | None = None, output_dir: StrPath | None = None, **options: object
) -> Trained:
    """Trains a model on pairs of answers, which it learns and tells apart at once (ORPO); experimental.

    Arguments, result and exceptions as for `sft`; options are those of `trl.experimental.orpo.ORPOConfig`.
    """
    return _run("orpo", shards, model, output_dir, options)


def _run(
    method: str, shards: StrPath, model: StrPath | None, output_dir: StrPath | None, options: dict[str, object]
) -> Trained:
    given = {"data_path": shards, "model": model, "output_dir": output_dir, "method": method, **options}
    asked = Options.of(given)
    from dlgc.train.run import run

    return run(asked)
