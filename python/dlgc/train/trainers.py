"""TRL's trainers for rows that are ready: what prepares data is passed over, and the labels of the shards decide.

TRL's preference trainers take text, and train on everything after the prompt. Here they get ids, and collators that
say which of them are trained: tool and user messages inside an answer are not. Losses, metrics and loops are TRL's.
What is overridden is private to TRL; `tests/test_train_hooks.py` fails when it moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from trl import DPOTrainer, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from dlgc.exceptions import ShardError
from dlgc.train.methods import UNTRAINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

Row = dict[str, Any]
UNCUT = 2**31 - 1
"""For a trainer that warns where there is no `max_length`, and looks at it only for rows that are not ready."""


@dataclass
class PairCollator(DataCollatorForPreference):  # type: ignore[misc]  # TRL ships no types
    """TRL's batches of pairs, with a `completion_mask` that is 1 exactly where the shards say that it is trained."""

    def torch_call(self, examples: list[Row]) -> Row:
        """Makes a batch: the better answers, then the worse ones."""
        _plain(examples)
        batch: Row = super().torch_call(examples)
        labels = [example[f"{side}_labels"] for side in ("chosen", "rejected") for example in examples]
        _mask(batch["completion_mask"], [len(example["prompt_ids"]) for example in examples] * 2, labels)
        return batch


@dataclass
class SimpoCollator(PairCollator):
    """Adds what stands for the reference: a constant for each token of the better answer, nothing for the worse one.

    With TRL's length-normalised loss, -log sigmoid(beta * (chosen / |chosen| - rejected / |rejected|)), the constant
    gamma / beta gives SimPO's own, -log sigmoid(beta * (chosen / |chosen| - rejected / |rejected|) - gamma).
    """

    per_token: float = 0.0

    def torch_call(self, examples: list[Row]) -> Row:
        """Makes a batch with constants in the place of the reference's log-probabilities."""
        batch = super().torch_call(examples)
        trained = batch["completion_mask"].sum(1)[: len(examples)].float()
        return {**batch, "ref_chosen_logps": self.per_token * trained, "ref_rejected_logps": torch.zeros_like(trained)}


@dataclass
class VerdictCollator(DataCollatorForUnpairedPreference):  # type: ignore[misc]  # TRL ships no types
    """TRL's batches of answers with a verdict, with masks as the shards have them.

    KTO compares each prompt with the answer to another one. TRL takes that of the row before in the same batch, and
    writes it into the dataset; here it is taken when the batch is made.
    """

    def torch_call(self, examples: list[Row]) -> Row:
        """Makes a batch; the answers that are compared are those of the rows before."""
        _plain(examples)
        before = [examples[-1], *examples[:-1]]
        rows = [
            {**row, "KL_completion_ids": other["completion_ids"]} for row, other in zip(examples, before, strict=True)
        ]
        batch: Row = super().torch_call(rows)
        prompts = [len(row["prompt_ids"]) for row in rows]
        _mask(batch["completion_mask"], prompts, [row["completion_labels"] for row in examples])
        _mask(batch["KL_completion_mask"], prompts, [row["completion_labels"] for row in before])
        return batch


def _plain(examples: list[Row]) -> None:
    """Ids are lists: TRL joins prompt and answer by `+`, which adds tensors and arrays number by number."""
    for name, value in examples[0].items():
        if name.endswith("_ids") and not isinstance(value, list):
            raise ShardError(
                f"`{name}` is a {type(value).__name__}, expected a list: TRL would add the ids of prompt and answer\n"
                "hint: no `with_format` on rows of preferences"
            )


def _mask(mask: torch.Tensor, prompts: Sequence[int], labels: Sequence[list[int]]) -> None:
    """Sets a mask to what the labels of the answers say."""
    mask.zero_()
    for row, start, answer in zip(mask, prompts, labels, strict=True):
        row[start : start + len(answer)] = torch.tensor(answer) != UNTRAINED


class _Ready:
    """Rows that are ready are not prepared."""

    def _prepare_dataset(self, dataset: Dataset, *args: object, **kwargs: object) -> Dataset:
        if "prompt_ids" in dataset.column_names:
            return dataset
        return super()._prepare_dataset(dataset, *args, **kwargs)  # type: ignore[misc]  # of TRL's class


class PairTrainer(_Ready, DPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """DPO, on rows that are ready."""


class SimpoTrainer(PairTrainer):
    """SimPO by way of DPO: `SimpoCollator` brings the constants, so there is no reference model."""

    def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """Evaluates; TRL's own refuses where it would have to compute a reference first."""
        return Trainer.evaluate(self, *args, **kwargs)  # type: ignore[no-any-return]  # no types that hold

    def _compute_loss(self, model: Any, inputs: Row, return_outputs: bool) -> Any:  # noqa: ANN401, FBT001  # TRL's
        seen = []

        def forward(**kwargs: object) -> Any:  # noqa: ANN401  # TRL's
            seen.append(model(**kwargs))
            return seen[-1]

        loss = super()._compute_loss(forward, inputs, return_outputs)
        # TRL's rewards carry the constants; SimPO's is beta times the mean log-probability of a trained token.
        mask = inputs["completion_mask"][:, 1:]
        means = (seen[0].log_probs.detach()[:, -mask.size(1) :] * mask).sum(1) / mask.sum(1)
        chosen, rejected = (self.beta * means).chunk(2)
        found = {"chosen": chosen, "rejected": rejected, "margins": chosen - rejected, "accuracies": chosen > rejected}
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in found.items():
            metrics[f"rewards/{name}"][-1] = self.accelerator.gather(value.float()).mean().item()
        return loss


class VerdictTrainer(_Ready, KTOTrainer):  # type: ignore[misc]  # TRL ships no types
    """KTO, on rows that are ready."""


def odds_trainer(*, args: Any, quantization_config: object, **given: object) -> Any:  # noqa: ANN401  # TRL's
    """Makes a trainer for ORPO, on rows that are ready. TRL keeps it among its experiments: it may not be there."""
    import datasets
    from trl.experimental.orpo import ORPOTrainer

    class OddsTrainer(ORPOTrainer):  # type: ignore[misc]  # TRL ships no types
        def tokenize_row(self, feature: Row, model: object = None) -> Row:
            """Gives TRL its columns: prompt and answer in one, the labels those of the shards."""
            if "prompt_ids" not in feature:
                return super().tokenize_row(feature, model)  # type: ignore[no-any-return]  # TRL ships no types
            prompt = feature["prompt_ids"]
            row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
            for side in ("chosen", "rejected"):
                ids = prompt + feature[f"{side}_ids"]
                labels = [UNTRAINED] * len(prompt) + feature[f"{side}_labels"]
                row |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids), f"{side}_labels": labels}
            return row

        def evaluate(self, eval_dataset: Dataset | None = None, **kwargs: Any) -> dict[str, float]:  # noqa: ANN401  # TRL's
            """Evaluates; rows that were not there from the start get TRL's columns first."""
            if eval_dataset is not None:
                eval_dataset = eval_dataset.map(self.tokenize_row, keep_in_memory=True)
            return super().evaluate(eval_dataset, **kwargs)  # type: ignore[no-any-return]  # TRL ships no types

        def concatenated_forward(self, model: Any, batch: Row) -> tuple[Any, ...]:  # noqa: ANN401  # TRL's
            """TRL's likelihood of the better answer is that of the prompt too; here it is of what is trained."""
            found = super().concatenated_forward(model, batch)
            labels = batch["chosen_labels"][:, 1:]
            logits = found[2][:, : labels.size(1)]
            likelihood = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            return (*found[:4], likelihood, *found[5:])

    args.max_length = UNCUT
    args.model_init_kwargs |= {"quantization_config": quantization_config, "device_map": None}
    kept = datasets.is_caching_enabled()
    datasets.disable_caching()  # its columns would be written beside the shards
    try:
        return OddsTrainer(args=args, **given)
    finally:
        if kept:
            datasets.enable_caching()


def shown(trainer: Any, row: Row) -> list[tuple[torch.Tensor, torch.Tensor]]:  # noqa: ANN401  # any of TRL's
    """Returns what a model gets of a row, for each of its answers: ids and labels."""
    if hasattr(trainer, "tokenize_row"):
        batch = trainer.data_collator([trainer.tokenize_row(row)])
        return [(batch[f"{side}_input_ids"][0], batch[f"{side}_labels"][0]) for side in ("chosen", "rejected")]
    batch = trainer.data_collator([row])
    ids = batch["input_ids"]
    labels = batch["labels"] if "labels" in batch else ids.masked_fill(batch["completion_mask"] == 0, UNTRAINED)
    return list(zip(ids, labels, strict=True))


def forward_inputs(trainer: Any, rows: list[Row]) -> tuple[Row, torch.Tensor]:  # noqa: ANN401  # any of TRL's
    """Returns what a trainer calls its model with for some sequences, and apart from it their labels."""
    batch = dict(trainer.data_collator(rows))
    labels = batch.pop("labels")
    device = trainer.model.device
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
    }, labels
