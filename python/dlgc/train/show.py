"""What is said before and after a training: the plan, one row as the model sees it, one reply."""

from __future__ import annotations

import math
import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from dlgc.train.methods import UNTRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlgc.train.data import Shards
    from dlgc.train.options import Options

FEW_STEPS = 100
SMALL_BETA = 1.0
"""Below this, SimPO hardly tells answers apart."""
PIECE, LINES, LETTERS = 400, 24, 2000
"""A screenful: letters of a piece that is not cut in its middle, lines and letters in all."""
REPLY = 64
"""Tokens of a reply."""


def steps(rows: int, config: Any) -> tuple[int, float]:  # noqa: ANN401  # a trl.SFTConfig
    """Optimizer steps that the trainer will make, and the epochs that they are."""
    batches = math.ceil(rows / (config.per_device_train_batch_size * config.world_size))
    an_epoch = max(math.ceil(batches / config.gradient_accumulation_steps), 1)
    if config.max_steps > 0:
        return int(config.max_steps), config.max_steps / an_epoch
    made: int = math.ceil(config.num_train_epochs * an_epoch)
    return made, float(config.num_train_epochs)


def plan(shards: Shards, options: Options, config: Any, name: str, held_out: str | None) -> str:  # noqa: ANN401  # TRL's
    """What will be trained, how much of it, and in how many steps."""
    size, lora, method = shards.size, options.loading, options.how
    made, epochs = steps(size["rows"], config)
    bits = next((f" on a base of {n} bits" for n in (4, 8) if lora.get(f"load_in_{n}bit")), "")
    how = "every weight" if options.full else f"LoRA (r {lora['lora_r']}, alpha {lora['lora_alpha']}){bits}"
    devices = f"{config.device.type}, {config.world_size} processes" if config.world_size > 1 else config.device.type
    together = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    share = size["trained_tokens"] / size["tokens"]
    packed = f", packed from {size['examples']:,} examples" if "examples" in size else ""
    lines = [
        f"method         {method.title}{'; experimental' if method.experimental else ''}",
        f"model          {name}; {how}; {devices}",
        f"rows           {size['rows']:,}{packed}; the longest has {shards.longest:,} tokens",
        f"tokens         {size['tokens']:,} an epoch; {size['trained_tokens']:,} of them are trained ({share:.0%})",
        f"steps          {made:,}, each of up to {together} rows; {epochs:.3g} epochs",
        f"learning rate  {config.learning_rate:g}",
    ]
    if held_out is not None:
        when = {"no": "at the end", "epoch": "after each epoch"}.get(str(config.eval_strategy.value), "on the way")
        lines.append(f"held out       {shards.size_of(held_out)['rows']:,} rows of `{held_out}`, evaluated {when}")
    if options.model is None:
        lines.append("note: this model is random and tiny: it shows that the road works, and learns nothing of use")
    elif made < FEW_STEPS:
        advice = "more data, more epochs, or fewer rows a step: `--accumulation_steps`"
        lines.append(f"warning: {made} steps are few; below {FEW_STEPS} a model hardly changes\nhint: {advice}")
    return "\n".join([*lines, *_notes(options, config)]) + "\n"


def _notes(options: Options, config: Any) -> list[str]:  # noqa: ANN401  # TRL's
    """What the method does that its user may not expect."""
    method, notes = options.how, []
    low, high = method.usual
    if options.model is not None and not options.full and config.learning_rate < low:
        notes.append(f"hint: for LoRA a learning rate of {low:g} to {high:g} is usual with {method.name}")
    if not options.full and getattr(config, "disable_dropout", False) and options.loading.get("lora_dropout", True):
        notes.append(
            f"note: {method.name} switches dropout off, that of LoRA included; `--disable_dropout false` keeps it"
        )
    if method.name == "simpo" and config.beta < SMALL_BETA:
        notes.append("hint: the authors of SimPO use a `--beta` of 2 to 10, and half of it or less as `--simpo_gamma`")
    return notes


def excerpt(ids: Sequence[int], labels: Sequence[int], decode: Callable[[list[int]], str], *, colour: bool) -> str:
    """A row as the model sees it, what is trained in green or `[[…]]`; cut to a screenful."""
    opening, closing = ("\x1b[32m", "\x1b[0m") if colour else ("[[", "]]")
    text = ""
    for trained, run in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != UNTRAINED):
        piece = _printable(decode([token for token, _ in run]))
        if len(piece) > PIECE:
            piece = f"{piece[: PIECE // 2]} … {piece[-PIECE // 2 :]}"
        text += f"{opening}{piece}{closing}" if trained else piece
    short = "\n".join(text[:LETTERS].splitlines()[:LINES])
    cut = len(text) > LETTERS or len(text.splitlines()) > LINES
    return f"{short}{closing if colour else ''} …" if cut else short


def in_colour() -> bool:
    """Whether the user sees a terminal, and likes colours."""
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def reply(model: Any, tokenizer: Any, prompt_ids: Sequence[int], stop_ids: list[int]) -> str:  # noqa: ANN401  # theirs
    """Lets a model answer a prompt, as a server would send it."""
    prompt = torch.tensor([list(prompt_ids)], device=model.device)
    model.eval()
    with torch.no_grad():
        found = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=REPLY,
            do_sample=False,
            eos_token_id=stop_ids or None,
            pad_token_id=tokenizer.pad_token_id,
        )
    return _printable(tokenizer.decode(found[0, len(prompt_ids) :].tolist()))


def _printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
