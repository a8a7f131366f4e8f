"""The methods: which rows each trains on, whose options it takes, and what is fixed so that TRL leaves rows alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlgc.exceptions import OptionsError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNTRAINED = -100
"""The label of a token that is not trained."""

ROWS = "the rows of a dataset are final: nothing is cut, added, packed or dropped after the compiler"
AGAIN = f"{ROWS}\nhint: compile again"
LABELS = "the labels in the shards say already what is trained: exactly what the assistant has to generate"
CONSTANT = "SimPO has no reference model, and one loss"

COLUMNS = {
    "sft": ("input_ids", "labels", "seq_lengths"),
    "preference": ("prompt_ids", "chosen_ids", "rejected_ids", "chosen_labels", "rejected_labels"),
    "kto": ("prompt_ids", "completion_ids", "completion_labels", "label"),
}
"""What a trainer reads of a row, by the kind of the rows; `seq_lengths` is there only where they are packed."""

GUIDE: dict[str, object] = {
    "learning_rate": 2e-5,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "lora_dropout": 0.1,
}
"""The guide's values: the defaults of SFT. The other methods have TRL's."""


@dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        name: What `--method` calls it.
        rows: The kind of rows that it trains on, a key of `COLUMNS`.
        title: What it is called in a sentence.
        contract: Arguments of TRL's configuration that are always so, because the rows are ready.
        defaults: Where they differ from TRL's.
        refused: Options of TRL that are not taken, and why.
        usual: The learning rates that are usual for LoRA, from the lowest to the highest.
        experimental: Whether TRL may change it in any release.
    """

    name: str
    rows: str
    title: str
    contract: Mapping[str, object]
    usual: tuple[float, float]
    defaults: Mapping[str, object] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    experimental: bool = False

    def config(self) -> type:
        """Returns TRL's class of its options.

        Raises:
            ImportError: TRL is not installed.
        """
        try:
            if self.name == "orpo":
                os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # that it is experimental we say ourselves
                from trl.experimental.orpo import ORPOConfig

                return ORPOConfig  # type: ignore[no-any-return]  # TRL ships no types
            import trl

            name = {"sft": "SFTConfig", "kto": "KTOConfig"}.get(self.name, "DPOConfig")
            return getattr(trl, name)  # type: ignore[no-any-return]  # TRL ships no types
        except ImportError as error:
            wanted = "training needs torch, transformers and TRL: pip install 'dlgc[train]'"
            raise ImportError(f"{wanted} ({error})") from error


_READY = {"max_length": None, "remove_unused_columns": False}

METHODS = {
    method.name: method
    for method in (
        Method(
            "sft",
            "sft",
            "supervised fine-tuning (SFT)",
            # TRL's own default cuts rows at 1,024 tokens, ready or not.
            {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}},
            (1e-4, 2e-4),
            GUIDE,
        ),
        Method("dpo", "preference", "direct preference optimisation (DPO)", _READY, (5e-6, 5e-5)),
        Method(
            "simpo",
            "preference",
            "simple preference optimisation (SimPO)",
            # No reference is computed: the constants that stand for it come with the batch.
            {**_READY, "loss_type": ["sigmoid_norm"], "precompute_ref_log_probs": True},
            (5e-6, 5e-5),
            {"simpo_gamma": 0.5},
            refused={
                **dict.fromkeys(("loss_type", "loss_weights", "f_divergence_type", "ld_alpha"), CONSTANT),
                **dict.fromkeys(("precompute_ref_log_probs", "sync_ref_model"), CONSTANT),
                "label_smoothing": "TRL's length-normalised loss does not smooth",
            },
        ),
        Method(
            "kto",
            "kto",
            "Kahneman-Tversky optimisation (KTO)",
            _READY,
            (5e-6, 5e-5),
            refused={"precompute_ref_log_probs": "what a completion is compared with depends on its batch"},
            experimental=True,
        ),
        Method(
            "orpo",
            "preference",
            "odds ratio preference optimisation (ORPO)",
            _READY,
            (1e-5, 1e-4),
            refused={
                **dict.fromkeys(("max_completion_length", "padding_value"), AGAIN),
                "generate_during_eval": "TRL's generation prompts from text, and the rows are ids",
                "is_encoder_decoder": "only causal models are trained",
            },
            experimental=True,
        ),
    )
}
"""Every method by its name."""

BY_ROWS = {"sft": "sft", "preference": "dpo", "kto": "kto"}
"""The method that nobody has to name, by the kind of the rows."""


def of(name: str) -> Method:
    """Finds a method by its name.

    Raises:
        OptionsError: There is none.
    """
    if name not in METHODS:
        raise OptionsError(f"no such method: `{name}`\nhint: there are {', '.join(f'`{known}`' for known in METHODS)}")
    return METHODS[name]


def kind(manifest: Mapping[str, Any]) -> str:
    """Returns the kind of the rows that a manifest tells of: `sft`, `preference` or `kto`."""
    return str(manifest["options"].get("rows", "sft"))
