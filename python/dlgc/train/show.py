"""What is said before and after a training: the plan, one row as the model sees it, one reply."""

from __future__ import annotations

import math
import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlgc.train.data import Shards
    from dlgc.train.options import Options

UNTRAINED = -100
FEW_STEPS = 100
SLOW_LORA = 5e-5
"""Below this, LoRA learns slowly."""
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


def plan(shards: Shards, options: Options, config: Any, name: str) -> str:  # noqa: ANN401  # a trl.SFTConfig
    """What will be trained, how much of it, and in how many steps."""
    size, lora = shards.size, options.loading
    made, epochs = steps(size["rows"], config)
    bits = next((f" on a base of {n} bits" for n in (4, 8) if lora.get(f"load_in_{n}bit")), "")
    how = "every weight" if options.full else f"LoRA (r {lora['lora_r']}, alpha {lora['lora_alpha']}){bits}"
    together = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    share = size["trained_tokens"] / size["tokens"]
    packed = f", packed from {size['examples']:,} examples" if "examples" in size else ""
    lines = [
        f"model          {name}; {how}; {config.device.type}",
        f"rows           {size['rows']:,}{packed}; the longest has {shards.longest:,} tokens",
        f"tokens         {size['tokens']:,} an epoch; {size['trained_tokens']:,} of them are trained ({share:.0%})",
        f"steps          {made:,}, each of up to {together} rows; {epochs:.3g} epochs",
        f"learning rate  {config.learning_rate:g}",
    ]
    if options.model is None:
        lines.append("note: this model is random and tiny: it shows that the road works, and learns nothing of use")
    elif made < FEW_STEPS:
        advice = "more data, more epochs, or fewer `--accumulation_steps`"
        lines.append(f"warning: {made} steps are few; below {FEW_STEPS} a model hardly changes\nhint: {advice}")
    if options.model is not None and not options.full and config.learning_rate < SLOW_LORA:
        lines.append("hint: for LoRA a learning rate of 1e-4 to 2e-4 is usual")
    return "\n".join(lines) + "\n"


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


def reply(model: Any, tokenizer: Any, row: dict[str, Any], stop_ids: list[int]) -> str:  # noqa: ANN401  # theirs
    """Lets a model answer the first prompt of a row: the ids before the first target, as a server would send them."""
    first = int((row["labels"] != UNTRAINED).argmax())
    prompt = torch.tensor([row["input_ids"][:first].tolist()], device=model.device)
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
    return _printable(tokenizer.decode(found[0, first:].tolist()))


def _printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
