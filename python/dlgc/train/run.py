"""One training from options to the saved result. What is SFT about it is in `_trainer`; all else suits any method."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback
from transformers.utils import is_torch_bf16_gpu_available
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

from dlgc.exceptions import OptionsError
from dlgc.train import checks, data, save, show
from dlgc.train.data import Shards
from dlgc.train.model import Base, write_builtin
from dlgc.train.options import Options, Trained

CONTRACT = {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
"""What makes TRL train rows as they are: its own defaults cut them at 1,024 tokens."""


@dataclass(frozen=True)
class Job:
    """A training that is ready: everything was checked, nothing was trained."""

    options: Options
    shards: Shards
    base: Base
    trainer: SFTTrainer


class _Companion(TrainerCallback):  # type: ignore[misc]  # transformers ships no types that hold
    """Logs the first and the last step, whatever the interval, and scrubs checkpoints as they are written."""

    def __init__(self, folder: Path, base: Base) -> None:
        self.folder = folder
        self.base = base

    def on_step_end(self, _args: object, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401  # theirs
        if state.global_step in (1, state.max_steps):
            control.should_log = True

    def on_save(self, _args: object, state: Any, _control: object, **_: object) -> None:  # noqa: ANN401  # theirs
        if state.is_world_process_zero:
            save.scrub(self.folder, self.base)


def run(options: Options) -> Trained:
    """Trains and saves.

    Raises:
        As `dlgc.train.sft`.
    """
    job = prepare(options)
    trainer, shards = job.trainer, job.shards
    if trainer.is_world_process_zero():
        name = "built in (random)" if job.base.builtin else job.base.public_name
        _say(show.plan(shards, options, trainer.args, name))
        _say(f"\none row as the model sees it, what is trained marked:\n{_first_row(trainer)}\n\n")
    trainer.add_callback(_Companion(options.output_dir, job.base))
    trainer.train(resume_from_checkpoint=options.resume)

    trainer.save_model(str(options.output_dir))
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trained = Trained(
        output_dir=options.output_dir,
        steps=trainer.state.global_step,
        first_loss=logged[0],
        last_loss=logged[-1],
        trained_tokens=shards.size["trained_tokens"],
    )
    if trainer.is_world_process_zero():
        save.finish(options, shards, job.base, trained)
        losses = f"{trained.first_loss:.4f} -> {trained.last_loss:.4f}"
        _say(f"loss {losses} in {trained.steps} steps; saved in `{options.output_dir}`\n")
    if options.sample and trainer.accelerator.num_processes == 1:
        said = show.reply(trainer.model, trainer.processing_class, shards.rows[0], shards.manifest["stop_ids"])
        noise = " (a random model: noise)" if job.base.builtin else ""
        _say(f"its reply to the first prompt{noise}:\n{said}\n")
    return trained


def prepare(options: Options) -> Job:
    """Opens data and model, refuses what does not fit, and makes the trainer.

    Raises:
        As `dlgc.train.sft`.
    """
    checks.output(options)
    config, loading = _configs(options)
    first = config.process_index == 0
    shards = _shards(options, config)
    checks.dataset(shards, options)
    if options.model is None:
        base = Base(str(options.output_dir / "base"), builtin=True)
        with config.main_process_first(local=False):
            if first:
                write_builtin(Path(base.name), shards, config.seed)
    else:
        base = Base.find(options.model, loading.model_revision)
    checks.base(base, shards, options)
    try:
        trainer = _trainer(shards, base, config, loading)
    except ValueError as error:
        raise OptionsError(str(error)) from error
    checks.served(trainer.processing_class, shards, options)
    checks.processes(trainer.accelerator.num_processes, os.environ)
    row = shards.rows[0]
    checks.batch(trainer.data_collator([row]), row)
    return Job(options, shards, base, trainer)


def _configs(options: Options) -> tuple[SFTConfig, ModelConfig]:
    training, loading = dict(options.training), dict(options.loading)
    training.setdefault("use_cpu", not torch.accelerator.is_available())  # TRL's default is bf16, and that needs one
    if not training.get("fp16"):
        quantised = loading.get("load_in_4bit") or loading.get("load_in_8bit")
        training.setdefault("bf16", bool(quantised) if training["use_cpu"] else is_torch_bf16_gpu_available())
    loading["use_peft"] = not options.full
    # Steps of a usual size are below half a unit of the last place of a bfloat16 weight: all weights want float32.
    loading.setdefault("dtype", "bfloat16" if training.get("bf16") and not options.full else "float32")
    try:
        model = ModelConfig(**loading)
        start = {
            "dtype": model.dtype,
            "attn_implementation": model.attn_implementation,
            "revision": model.model_revision,
        }
        training |= {**CONTRACT, "output_dir": str(options.output_dir), "model_init_kwargs": start}
        return SFTConfig(**training), model
    except (TypeError, ValueError) as error:
        raise OptionsError(str(error)) from error


def _shards(options: Options, config: SFTConfig) -> Shards:
    if data.is_dataset(options.data):
        shards = Shards.open(options.data)
        checks.asked_again(shards, options)
        return shards
    with config.main_process_first(local=False):
        if config.process_index == 0:
            data.compile_raw(options)
    return Shards.open(data.compiled_folder(options))


def _trainer(shards: Shards, base: Base, config: SFTConfig, loading: ModelConfig) -> SFTTrainer:
    config.padding_free = shards.packed  # otherwise the examples of a packed row see each other
    return SFTTrainer(
        model=base.name,
        args=config,
        train_dataset=shards.rows,
        processing_class=AutoTokenizer.from_pretrained(shards.tokenizer),
        peft_config=get_peft_config(loading),
        quantization_config=get_quantization_config(loading),
    )


def _first_row(trainer: SFTTrainer) -> str:
    batch = trainer.data_collator([trainer.train_dataset[0]])
    tokenizer = trainer.processing_class

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return show.excerpt(ids, labels, decode, colour=show.in_colour())


def _say(text: str) -> None:
    sys.stderr.write(text)
