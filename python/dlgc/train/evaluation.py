"""Held-out rows: when they are evaluated, and what their loss is by type of dialogue and by turn."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

import dlgc
from dlgc.exceptions import OptionsError
from dlgc.train.methods import UNTRAINED
from dlgc.train.trainers import forward_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlgc.train.data import Shards
    from dlgc.train.options import Options

DEFAULT = "validation"
DIALOGUE = ["dialogue_id", "file", "line"]
"""What tells dialogues apart, here and in `dialogues.arrow`."""

Found = dict[str, dict[str, dict[str, float]]]
"""`by_type` and `by_turn` (pairs and verdicts: `by_message`), then the group, then what was found of it."""


def split(options: Options, shards: Shards) -> str | None:
    """Returns the split that is held out; None where nothing is evaluated.

    Raises:
        OptionsError: It is asked for and is not there, or has no rows.
    """
    asked = options.eval_split
    if asked == "none":
        return None
    if shards.size_of(asked or DEFAULT)["rows"]:
        return asked or DEFAULT
    wanted = f"`eval_split {asked}`" if asked else None
    if options.early_stopping_patience is not None:
        wanted = "`early_stopping_patience`"
    if options.training.get("eval_strategy", "no") != "no":
        wanted = f"`eval_strategy {options.training['eval_strategy']}`"
    if wanted is None:
        return None
    there = ", ".join(f"`{name}` ({size['rows']:,})" for name, size in shards.manifest["splits"].items())
    raise OptionsError(
        f"{wanted} needs held-out rows, and `{shards.folder}` has none in `{asked or DEFAULT}`\n"
        f"hint: it has rows in {there}; `dlgc compile --split validation=0.05` holds some out"
    )


def arguments(options: Options) -> dict[str, object]:
    """Returns what the trainer is told where there are held-out rows: when they are evaluated, and what is best.

    Raises:
        OptionsError: Early stopping without evaluation on the way.
    """
    asked = options.training
    strategy = asked.get("eval_strategy") or ("steps" if "eval_steps" in asked else "epoch")
    found: dict[str, object] = {"eval_strategy": strategy}
    if options.early_stopping_patience is None:
        return found
    if strategy == "no":
        raise OptionsError("`early_stopping_patience` needs evaluations on the way, and `eval_strategy` is `no`")
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    # The best model can only be kept if there is a checkpoint of it.
    saved = {"save_strategy": strategy, **({"save_steps": asked["eval_steps"]} if "eval_steps" in asked else {})}
    return {**found, **best, **saved}


def breakdown(trainer: Any, shards: Shards, name: str) -> Found:  # noqa: ANN401  # any of TRL's trainers
    """Evaluates a split once more, by groups: of sequences the loss of a token, of the others what TRL says of rows."""
    if shards.kind == "sft":
        return _by_tokens(trainer, shards, name)
    answers = _typed(shards, _answers(shards, name))
    return {f"by_{group}": _by_rows(trainer, shards, name, answers, group) for group in ("type", "message")}


def table(found: Found) -> str:
    """Returns a breakdown as lines of text."""
    lines = []
    for by, groups in found.items():
        for group, values in groups.items():
            numbers = "  ".join(f"{name} {value:,.4g}" for name, value in values.items())
            lines.append(f"  {by.removeprefix('by_'):<8}{group:<10}{numbers}\n")
    return "".join(lines)


def _typed(shards: Shards, found: pl.DataFrame) -> pl.DataFrame:
    """Adds the type of the dialogue."""
    dialogues = dlgc.scan_dialogues(shards.folder).select(pl.col("id").alias("dialogue_id"), "file", "line", "type")
    return found.join(dialogues.collect().unique(DIALOGUE), on=DIALOGUE, how="left", maintain_order="left")


def _answers(shards: Shards, name: str) -> pl.DataFrame:
    """One line for each row of pairs or verdicts, with the first message that is trained of the (better) answer."""
    messages = "chosen_messages" if shards.kind == "preference" else "trained_messages"
    return shards.frame(name).select(*DIALOGUE, message=pl.col(messages).list.first()).with_row_index("row").collect()


def _targets(shards: Shards, name: str) -> pl.DataFrame:
    """One line for each target of sequences, in order: its row, and which of its dialogue's trained turns it is."""
    columns = [*DIALOGUE, "trained_messages"]
    rows = shards.frame(name).select(columns).with_row_index("row").collect()
    targets = rows.explode(columns).explode("trained_messages")
    turn = pl.col("trained_messages").rank("dense").over(DIALOGUE)
    # Only an exact mask has a target for each trained message.
    return targets.with_columns(turn=turn if shards.manifest["options"]["mask"] == "exact" else pl.lit(None, pl.UInt32))


def _by_tokens(trainer: Any, shards: Shards, name: str) -> Found:  # noqa: ANN401  # TRL's
    targets = _typed(shards, _targets(shards, name))
    groups = targets.select("type", "turn").unique(maintain_order=True).with_row_index("group")
    targets = targets.join(groups, on=["type", "turn"], how="left", maintain_order="left", nulls_equal=True)
    marks = targets.group_by("row", maintain_order=True).agg("group")["group"].to_list()
    sums = _losses(trainer, shards.split(name), marks, len(groups))
    each = groups.with_columns(loss=pl.Series(sums[0]), tokens=pl.Series(sums[1]))
    found: Found = {}
    for by in ("type", "turn"):
        total = each.group_by(by).agg(pl.col("loss", "tokens").sum()).sort(by)
        found[f"by_{by}"] = {
            str(group): {"loss": loss / tokens, "tokens": int(tokens)}
            for group, loss, tokens in total.iter_rows()
            if tokens and group is not None
        }
    return {by: parts for by, parts in found.items() if parts}


def _losses(trainer: Any, rows: Any, marks: list[list[int]], groups: int) -> list[list[float]]:  # noqa: ANN401  # theirs
    """Sum of the losses and number of the tokens of each group, over all processes."""
    accelerator, size = trainer.accelerator, trainer.args.per_device_eval_batch_size
    sums = torch.zeros(2, groups, dtype=torch.float64)
    trainer.model.eval()
    for start in range(accelerator.process_index * size, len(rows), accelerator.num_processes * size):
        places = range(start, min(start + size, len(rows)))
        batch = [rows[place] for place in places]
        inputs, labels = forward_inputs(trainer, batch)
        # The same collator lays out the groups as it does the labels.
        marked = [{**row, "labels": _marked(row, marks[place])} for place, row in zip(places, batch, strict=True)]
        _, group = forward_inputs(trainer, marked)
        labels, group = labels[:, 1:], group[:, 1:]
        trained = labels != UNTRAINED
        with torch.no_grad(), trainer.compute_loss_context_manager():
            logits = trainer.model(**inputs, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits[trained.to(logits.device)].float(), labels[trained].to(logits.device), reduction="none"
        )
        sums[0].index_add_(0, group[trained], losses.double().cpu())
        sums[1].index_add_(0, group[trained], torch.ones(int(trained.sum()), dtype=torch.float64))
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums.to(accelerator.device), "sum")
    return sums.tolist()


def _marked(row: dict[str, Any], groups: Sequence[int]) -> Any:  # noqa: ANN401  # an array
    """The labels of a row, with the group of its target for each trained token."""
    labels = np.array(row["labels"], dtype=np.int64)
    borders = np.cumsum(row["seq_lengths"]).tolist() if "seq_lengths" in row else [len(labels)]
    number, start = -1, 0
    for end in borders:
        for trained, run in groupby(range(start, end), key=lambda place: labels[place] != UNTRAINED):
            places = list(run)
            if trained:
                number += 1
                labels[places] = groups[min(number, len(groups) - 1)]
        start = end
    return labels


def _by_rows(
    trainer: Any,  # noqa: ANN401  # TRL's
    shards: Shards,
    name: str,
    answers: pl.DataFrame,
    group: str,
) -> dict[str, dict[str, float]]:
    rows = shards.split(name)
    found = {}
    for value, part in _parts(answers, group):
        metrics = trainer.evaluate(rows.select(part), metric_key_prefix=f"eval_{group}_{value}")
        kept = {key.rpartition("_")[2]: number for key, number in metrics.items() if key.endswith("_loss")}
        kept |= {key.rpartition("/")[2]: metrics[key] for key in metrics if "rewards/" in key}
        found[value] = {"rows": len(part), **kept}
    return found


def _parts(answers: pl.DataFrame, group: str) -> Iterable[tuple[str, list[int]]]:
    for (value,), part in sorted(answers.group_by(group), key=lambda pair: str(pair[0])):
        yield str(value), part["row"].to_list()
