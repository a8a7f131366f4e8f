"""One training from options to the saved result, whatever the method."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer, EarlyStoppingCallback, TrainerCallback
from transformers.utils import is_torch_bf16_gpu_available
from trl import ModelConfig, SFTTrainer, get_peft_config, get_quantization_config

from dlgc.exceptions import OptionsError
from dlgc.train import checks, data, evaluation, methods, plot, resume, save, show, trainers
from dlgc.train.data import SPLIT, Shards
from dlgc.train.model import Base, write_builtin
from dlgc.train.options import Options, Trained

if TYPE_CHECKING:
    from datasets import Dataset

PACKS = "support_avx512bf16_for_cpu"
"""What bitsandbytes calls it where a 4-bit layer may pack its weights for answering."""


@dataclass(frozen=True)
class Job:
    """A training that is ready: everything was checked, nothing was trained."""

    options: Options
    shards: Shards
    base: Base
    trainer: Any
    loading: ModelConfig
    held_out: str | None
    checkpoint: str | None


class _Companion(TrainerCallback):  # type: ignore[misc]  # transformers ships no types that hold
    """Logs the first and the last step, whatever the interval; scrubs checkpoints, and says that they are whole."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.record = resume.record(job.options, job.shards, job.trainer.args)

    def on_step_end(self, _args: object, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401  # theirs
        if state.global_step in (1, state.max_steps):
            control.should_log = True

    def on_save(self, _args: object, state: Any, _control: object, **_: object) -> None:  # noqa: ANN401  # theirs
        if state.is_world_process_zero:
            folder = self.job.options.output_dir
            save.scrub(folder, self.job.base)
            resume.mark(folder, state.global_step, self.record)


def run(options: Options) -> Trained:
    """Trains and saves.

    Raises:
        As `dlgc.train.sft`.
    """
    job = prepare(options)
    trainer, shards, options = job.trainer, job.shards, job.options
    first = trainer.is_world_process_zero()
    if first:
        name = "built in (random)" if job.base.builtin else job.base.public_name
        _say(show.plan(shards, options, trainer.args, name, job.held_out))
        _say(f"\none row as the model sees it, what is trained marked:\n{_first_row(job)}\n\n")
    trainer.add_callback(_Companion(job))
    trainer.train(resume_from_checkpoint=job.checkpoint)
    trainer.save_model(str(options.output_dir))

    trained = _trained(job)
    history = list(trainer.state.log_history)
    if first and options.merge:
        save.merge(options, job.base, job.loading)
    if first:
        save.finish(options, shards, job.base, trained, history)
        found = plot.curves(history)
        _say(f"loss {plot.sparkline([loss for _, loss in found['loss']])}  {trained.first_loss:.4f} -> ")
        _say(f"{trained.last_loss:.4f} in {trained.steps} steps; saved in `{options.output_dir}`\n")
        if trained.evaluation:
            _say(f"held-out rows of `{job.held_out}`:\n{evaluation.table(trained.evaluation)}")
    if options.sample and trainer.accelerator.num_processes == 1:
        said = show.reply(trainer.model, trainer.processing_class, _first_prompt(job), shards.manifest["stop_ids"])
        noise = " (a random model: noise)" if job.base.builtin else ""
        _say(f"its reply to the first prompt{noise}:\n{said}\n")
    return trained


def leave() -> None:
    """Ends the group of processes, if there is one, when all of them are done.

    A process that ends while threads of its group still run is now and then aborted (`terminate called without an
    active exception`): torchrun then says that a training failed whose result is whole.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def prepare(options: Options) -> Job:
    """Opens data and model, refuses what does not fit, and makes the trainer.

    Raises:
        As `dlgc.train.sft`.
    """
    checks.output(options)
    config, loading = _configs(options)
    shards = _shards(options, config)
    checks.dataset(shards, options)
    held_out = evaluation.split(options, shards)
    if held_out is not None:
        options = replace(options, training={**options.training, **evaluation.arguments(options)})
        config, loading = _configs(options)
    checks.rows(shards, [SPLIT] if held_out is None else [SPLIT, held_out])
    checkpoint = resume.find(options, resume.record(options, shards, config), aloud=config.process_index == 0)
    if options.model is None:
        base = Base(str(options.output_dir / "base"), builtin=True)
        with config.main_process_first(local=False):
            if config.process_index == 0:
                write_builtin(Path(base.name), shards, config.seed)
    else:
        base = Base.find(options.model, loading.model_revision)
    checks.base(base, shards, options)
    try:
        trainer = _trainer(options, shards, _given(shards, base, config, loading, held_out))
    except ValueError as error:
        raise OptionsError(str(error)) from error
    _keep_trainable(trainer.model)
    checks.served(trainer.processing_class, shards, options)
    checks.processes(trainer.accelerator.num_processes, os.environ)
    checks.batch(trainer, shards.rows[0], shards.kind)
    if shards.packed:
        checks.isolated(trainer, shards)
    if options.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=options.early_stopping_patience))
    return Job(options, shards, base, trainer, loading, held_out, checkpoint)


def _keep_trainable(model: torch.nn.Module) -> None:
    """Keeps 4-bit weights in the form through which gradients flow.

    On processors with AVX512-BF16 bitsandbytes packs the weights of a layer that is asked in evaluation mode (0.50,
    `Linear4bit.forward`), and leaves them so: in training nothing before such a layer would have a gradient.
    """
    for module in model.modules():
        if hasattr(module, PACKS):
            setattr(module, PACKS, False)


def _configs(options: Options) -> tuple[Any, ModelConfig]:
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
        training |= {**options.how.contract, "output_dir": str(options.output_dir), "model_init_kwargs": start}
        return options.how.config()(**training), model
    except (TypeError, ValueError) as error:
        raise OptionsError(str(error)) from error


def _shards(options: Options, config: Any) -> Shards:  # noqa: ANN401  # of the method's class
    if data.is_dataset(options.data):
        shards = Shards.open(options.data)
        checks.asked_again(shards, options)
        return shards
    with config.main_process_first(local=False):
        if config.process_index == 0:
            data.compile_raw(options)
    return Shards.open(data.compiled_folder(options))


def _trainer(options: Options, shards: Shards, given: dict[str, Any]) -> Any:  # noqa: ANN401  # one of TRL's
    config, pad = given["args"], given["processing_class"].pad_token_id
    match options.how.name:
        case "sft":
            config.padding_free = shards.packed  # otherwise the examples of a packed row see each other
            return SFTTrainer(**given)
        case "dpo":
            return trainers.PairTrainer(**given, data_collator=trainers.PairCollator(pad))
        case "simpo":
            per_token = (options.simpo_gamma or 0.0) / config.beta
            return trainers.SimpoTrainer(**given, data_collator=trainers.SimpoCollator(pad, per_token=per_token))
        case "kto":
            given["train_dataset"] = _shuffled(shards.rows, config.seed)
            return trainers.VerdictTrainer(**given, data_collator=trainers.VerdictCollator(pad))
        case _:
            return trainers.odds_trainer(**given)


def _given(shards: Shards, base: Base, config: Any, loading: ModelConfig, held_out: str | None) -> dict[str, Any]:  # noqa: ANN401  # of the method's class
    """What every trainer is given."""
    tokenizer = AutoTokenizer.from_pretrained(shards.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as TRL's trainers do
    return {
        "model": base.name,
        "args": config,
        "train_dataset": shards.rows,
        "eval_dataset": None if held_out is None else shards.split(held_out),
        "processing_class": tokenizer,
        "peft_config": get_peft_config(loading),
        "quantization_config": get_quantization_config(loading),
    }


def _shuffled(rows: Dataset, seed: int) -> Dataset:
    """TRL reads KTO's rows in their order: shuffled once, good and bad answers do not come in blocks."""
    return rows.shuffle(seed=seed, keep_in_memory=True)


def _trained(job: Job) -> Trained:
    trainer = job.trainer
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    steps = trainer.state.global_step
    trainer.remove_callback(EarlyStoppingCallback)
    found = None if job.held_out is None else evaluation.breakdown(trainer, job.shards, job.held_out)
    return Trained(
        output_dir=job.options.output_dir,
        steps=steps,
        first_loss=logged[0],
        last_loss=logged[-1],
        trained_tokens=job.shards.size["trained_tokens"],
        evaluation=found,
    )


def _first_prompt(job: Job) -> list[int]:
    """The ids before the first target, as a server would send them."""
    ids, labels = checks.sides(job.shards.rows[0], job.shards.kind)[0]
    return ids[: next(place for place, label in enumerate(labels) if label != methods.UNTRAINED)]


def _first_row(job: Job) -> str:
    """The first row out of the collator: what the model sees, and what is trained of it."""
    tokenizer, kind = job.trainer.processing_class, job.shards.kind

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    lines = []
    for number, (ids, labels) in enumerate(trainers.shown(job.trainer, job.shards.rows[0])):
        if kind == "preference":
            lines.append(f"-- {('the better answer', 'the worse answer')[number]}:")
        length = len(checks.sides(job.shards.rows[0], kind)[number][0])
        lines.append(show.excerpt(ids[:length].tolist(), labels[:length].tolist(), decode, colour=show.in_colour()))
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(text)
