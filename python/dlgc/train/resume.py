"""Going on where a training was cut off, exactly: the same rows in the same order, and the same weights at the end.

A checkpoint is whole when its record is there: it is written last, and says what was trained and how. A training that
reads other rows, or in other batches, would not go on but do something else, so it is refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlgc.exceptions import OptionsError
from dlgc.train.save import manifest_digest

if TYPE_CHECKING:
    from dlgc.train.data import Shards
    from dlgc.train.options import Options

RECORD = "dlgc-checkpoint.json"
"""Is written last into a checkpoint: one without it may be half of one."""

HINT = "hint: go on as it was begun, or begin anew with another `--output_dir`"


def record(options: Options, shards: Shards, config: Any) -> dict[str, Any]:  # noqa: ANN401  # of the method's class
    """Returns what decides which rows a step sees, and what becomes of them."""
    return {
        "method": options.how.name,
        "dataset": manifest_digest(shards),
        "model": "built-in" if options.model is None else Path(options.model).name,
        "trained": "full" if options.full else "adapter",
        "processes": config.world_size,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "seed": config.seed,
        "data_seed": config.data_seed,
        "learning_rate": config.learning_rate,
    }


def mark(folder: Path, step: int, found: dict[str, Any]) -> None:
    """Says that the checkpoint of a step is whole."""
    path = folder / f"checkpoint-{step}" / RECORD
    partial = path.with_name(f"{RECORD}.partial")
    partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def find(options: Options, wanted: dict[str, Any], *, aloud: bool) -> str | None:
    """Returns the checkpoint to go on from; None where the training begins.

    Raises:
        OptionsError: There is no whole checkpoint, or it is one of another training.
    """
    asked = options.resume
    if asked is None or asked is False or asked == "false":
        return None
    if asked is True:
        checkpoint = _last(options.output_dir, wanted["processes"], aloud=aloud)
    else:
        checkpoint = Path(asked).expanduser()
        if not _whole(checkpoint, wanted["processes"]):
            raise OptionsError(f"`{checkpoint}` is no whole checkpoint: it has no `{RECORD}`, which is written last")
    was = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))
    for name, value in wanted.items():
        if was.get(name) != value:
            raise OptionsError(f"`{checkpoint}` was trained with `{name}` {was.get(name)}, now it is {value}\n{HINT}")
    return str(checkpoint)


def _last(folder: Path, processes: int, *, aloud: bool) -> Path:
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if path.is_dir()}
    for _, path in sorted(steps.items(), reverse=True):
        if _whole(path, processes):
            return path
        if aloud:
            sys.stderr.write(f"note: `{path}` is not whole, the training was cut off while it was written\n")
    raise OptionsError(
        f"`{folder}` has no whole checkpoint to go on from\n"
        "hint: leave out `--resume_from_checkpoint`; `--save_steps N` makes checkpoints sooner"
    )


def _whole(checkpoint: Path, processes: int) -> bool:
    """Whether everything is there: the record, and the random state of each process."""
    if not (checkpoint / RECORD).is_file():
        return False
    was = json.loads((checkpoint / RECORD).read_text(encoding="utf-8")).get("processes", processes)
    states = ["rng_state.pth"] if was == 1 else [f"rng_state_{rank}.pth" for rank in range(was)]
    return all((checkpoint / name).is_file() for name in states)
