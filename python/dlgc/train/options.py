"""What is asked of a training, and what is answered: flags, YAML and keyword arguments become one `Options`.

Names are those of TRL's configuration of the method (`trl.SFTConfig` and its like) and of `trl.ModelConfig`, the
guide's spellings of some of them (`ALIASES`), and dlgc's own (`Own`). A name that none of them has is an error
everywhere, and so is an option that would change the rows.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_type_hints

import dlgc
from dlgc.exceptions import OptionsError
from dlgc.train import methods
from dlgc.train.methods import AGAIN, LABELS, METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dlgc.train.methods import Method

HELP = """\
usage: python -m dlgc.train SHARDS [--model MODEL] [--method METHOD] [options]
       torchrun --nproc_per_node N -m dlgc.train SHARDS [--model MODEL] [options]

Trains a model on compiled dialogues, by TRL: LoRA, QLoRA with --load_in_4bit, every weight with --full.
Without --model a tiny random model, built in, is trained: that shows that the road works, in seconds and offline.

data:
  SHARDS, --data_path PATH        a compiled dataset; or raw dialogues: they are compiled into OUTPUT_DIR/shards first,
                                  with the tokenizer in the folder --model
  --train_on_assistant_only true  is always so: the labels in the shards say what is trained; false is refused
  --max_seq_length N              token budget of a row. Raw dialogues are compiled with it; with a dataset it must be
                                  the one that it was compiled with
  --chat_template FILE            the same for the chat template
  --allow_tokenizer_mismatch      train although the model's tokenizer is another than that of the shards
  --allow_template_mismatch       train although the model's chat template is another than that of the shards

method:
  --method METHOD                 sft, dpo, simpo; experimental: kto, orpo. Default by what the shards hold: sft for
                                  sequences, dpo for pairs of answers, kto for answers with a verdict
  --beta X                        dpo, simpo, kto, orpo: how much the answers are told apart (TRL's default 0.1)
  --loss_type NAME ...            dpo: TRL's losses, as sigmoid (default), hinge, ipo, robust, apo_zero, sigmoid_norm
  --simpo_gamma X                 simpo: by how much the better answer is to win (default 0.5)
  --disable_dropout true|false    dpo, simpo, kto, orpo: no dropout, that of LoRA included (default true)

model:
  --model MODEL                   a folder or a name on the Hub (also --model_name_or_path)
  --model_revision REVISION       branch, tag or commit on the Hub
  --dtype TYPE                    of the loaded weights; default bfloat16 where bf16 is on, float32 elsewhere and for
                                  --full, where steps of this size would be lost in bfloat16
  --attn_implementation NAME      such as sdpa or flash_attention_2

adapter:
  --full                          train every weight, no adapter (default for the built-in model)
  --lora_r N                      rank (default 16)
  --lora_alpha N                  scale (default 32)
  --lora_dropout P                dropout (sft 0.1; other methods have TRL's, and none unless --disable_dropout false)
  --lora_target_modules NAME ...  layers that get an adapter (default all-linear: all but the output layer)
  --load_in_4bit                  QLoRA: the base model in 4 bits, nf4 (needs bitsandbytes)

training (defaults of sft are the guide's, of the other methods TRL's):
  --lr, --learning_rate X         sft 2e-5, others 1e-6; for LoRA more is usual, a hint says so. Built-in model: 1e-2
  --epochs, --num_train_epochs N  default 3
  --max_steps N                   stop after so many optimizer steps. Built-in model: 20, unless --epochs is given
  --per_device_train_batch_size N       rows in a batch (sft 2, others 8)
  --accumulation_steps, --gradient_accumulation_steps N
                                  batches in an optimizer step (sft 8, others 1; built-in model: 1)
  --bf16 true|false               bfloat16 arithmetic; default true where the accelerator has it
  --gradient_checkpointing true|false   less memory for more time (default true; built-in: false)
  --seed N                        default 42

evaluation (where the dataset has a split for it):
  --eval_split NAME               default validation; none for none
  --eval_strategy epoch|steps|no  when it is evaluated on the way (default epoch; with --eval_steps N also steps)
  --early_stopping_patience N     stop after so many evaluations without a better eval_loss, and keep the best

output:
  --output_dir PATH               default runs/METHOD; must not hold a trained model already
  --merge                         also save adapter and base model as one, in OUTPUT_DIR/merged
  --temperature X, --top_p X, --repetition_penalty X
                                  written into generation_config.json beside the stop ids, for whoever serves the model
  --logging_steps N               default 10
  --save_steps N                  checkpoint after so many steps (default 500, and at the end)
  --resume_from_checkpoint PATH|true    go on from a checkpoint; true: from the last whole one in OUTPUT_DIR
  --report_to NAME                none (default), tensorboard, wandb, trackio, ...
  --sample                        let the trained model answer one prompt of the dataset

  --config FILE.yaml              options by name, without the dashes; flags win. env: {NAME: VALUE} is exported
  -h, --help                      this text

Every other option of TRL's configuration of the method, and of trl.ModelConfig, goes by its own name, --warmup_steps or
--use_dora for example; those that would change the rows (--max_length, --packing, ...) are refused.
"""

ALIASES = {
    "model": "model_name_or_path",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "accumulation_steps": "gradient_accumulation_steps",
}
"""The guide's spellings, and TRL's."""

BUILTIN: dict[str, object] = {
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}
"""What differs for the built-in model, so that its loss is seen to fall within seconds."""
BUILTIN_STEPS = 20

LORA: dict[str, object] = {"lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear"}
"""Defaults of the adapter: the guide's, and every layer but the output, as TRL's losses need that one bare."""

_TOKENIZER = "tokenizer, template and stop tokens are those that the shards were made with\nhint: compile again"
REFUSED = {
    **dict.fromkeys(
        (
            "max_length",
            "truncation_mode",
            "packing",
            "packing_strategy",
            "eval_packing",
            "padding_free",
            "shuffle_dataset",
            "dataset_text_field",
            "dataset_kwargs",
            "dataset_num_proc",
            "remove_unused_columns",
            "dataloader_drop_last",
        ),
        AGAIN,
    ),
    "assistant_only_loss": LABELS,
    "completion_only_loss": LABELS,
    "eos_token": _TOKENIZER,
    "pad_token": _TOKENIZER,
    "chat_template_path": _TOKENIZER,
    "trust_remote_code": "code that comes with a model is never run",
    "model_init_kwargs": "hint: `dtype`, `attn_implementation` and `model_revision` are options of their own",
    "ignore_data_skip": "a resumed training would see rows twice, and others not at all",
    "push_to_hub": "TRL would upload files before the paths of this machine are taken out of them\n"
    "hint: upload the folder afterwards, `hf upload NAME OUTPUT_DIR`",
}
"""Options of TRL that are not taken, whatever the method, and why."""

_WORDS = ("true", "false", "yes", "no", "t", "f", "y", "n", "1", "0")


@dataclass(frozen=True, kw_only=True)
class Own:
    """The options that TRL does not have; `HELP` says what each means."""

    method: str | None = None
    data_path: str | None = None
    train_on_assistant_only: bool = True
    max_seq_length: int | None = None
    chat_template: str | None = None
    allow_tokenizer_mismatch: bool = False
    allow_template_mismatch: bool = False
    simpo_gamma: float | None = None
    full: bool | None = None
    eval_split: str | None = None
    early_stopping_patience: int | None = None
    merge: bool = False
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    sample: bool = False


@dataclass(frozen=True, kw_only=True)
class Options(Own):
    """Everything that is asked of a training.

    Attributes:
        model: A folder or a name on the Hub; None for the built-in model.
        output_dir: Where the result goes.
        resume: A checkpoint, or True for the last one.
        training: Arguments of TRL's configuration of the method.
        loading: Arguments of `trl.ModelConfig`.
    """

    model: str | None
    output_dir: Path
    resume: str | bool | None
    training: dict[str, Any] = field(default_factory=dict)
    loading: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The dataset, or raw dialogues."""
        return Path(self.data_path or "").expanduser()

    @property
    def how(self) -> Method:
        """The method."""
        return methods.of(self.method or "sft")

    @classmethod
    def of(cls, given: Mapping[str, object]) -> Options:
        """Reads options by name; what is None counts as not given.

        Raises:
            OptionsError: An option that does not exist, is not taken, or contradicts another.
            ShardError: The dataset is one of another version.
            ImportError: TRL is not installed.
        """
        method = _method(given)
        names = _Names.read(method)
        names.check(given)
        plain = [(ALIASES.get(name, name), value) for name, value in given.items() if value is not None]
        found = {name: fspath(value) if isinstance(value, PathLike) else value for name, value in plain}
        if len(found) < len(plain):
            twice = ", ".join(
                f"`{alias}` and `{name}`" for alias, name in ALIASES.items() if {alias, name} <= set(given)
            )
            raise OptionsError(f"given twice: {twice}")
        _refuse(found, method)
        if "data_path" not in found:
            raise OptionsError("expected a dataset, found none\nhint: python -m dlgc.train SHARDS")

        model = cast("str | None", found.pop("model_name_or_path", None))
        found["full"] = _full(found, model)
        found["method"] = method.name
        defaults = {**LORA, **method.defaults, "output_dir": f"runs/{method.name}", "report_to": "none"}
        if model is None:
            defaults |= BUILTIN
            if not {"num_train_epochs", "max_steps"} & set(found):
                found["max_steps"] = BUILTIN_STEPS
        values = {**defaults, **found}
        resume = values.pop("resume_from_checkpoint", None)
        return cls(
            model=model,
            output_dir=Path(cast("str", values["output_dir"])).expanduser(),
            resume=True if resume in ("true", "True") else cast("str | bool | None", resume),
            training={name: value for name, value in values.items() if name in names.training},
            loading={name: value for name, value in values.items() if name in names.loading},
            **{name: value for name, value in values.items() if name in names.own},  # type: ignore[arg-type]  # typed by name
        )


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        output_dir: Where adapter or model were saved.
        steps: Optimizer steps.
        first_loss: Loss of the first step.
        last_loss: Loss at the end: the mean since the log before.
        trained_tokens: Trained tokens of one epoch.
        evaluation: What came of the held-out rows, by type of dialogue and by turn; None without any.
    """

    output_dir: Path
    steps: int
    first_loss: float
    last_loss: float
    trained_tokens: int
    evaluation: dict[str, dict[str, dict[str, float]]] | None = None


@dataclass(frozen=True)
class _Names:
    """The names of all options of some methods, and which of them are switches."""

    methods: tuple[Method, ...]
    own: frozenset[str]
    training: frozenset[str]
    loading: frozenset[str]
    switches: frozenset[str]

    @classmethod
    def read(cls, *of: Method) -> _Names:
        own, *theirs, model = sources = _sources(of)
        training = {item.name for source in theirs for item in fields(source)}
        hints = {name: hint for source in sources for name, hint in get_type_hints(source).items()}
        return cls(
            methods=of,
            own=frozenset(item.name for item in fields(own)),
            training=frozenset(training),
            loading=frozenset({item.name for item in fields(model)} - training),
            switches=frozenset(name for name, hint in hints.items() if hint in (bool, bool | None)),
        )

    @property
    def all(self) -> frozenset[str]:
        return self.own | self.training | self.loading | set(ALIASES)

    def check(self, given: Iterable[str]) -> None:
        for name in given:
            if name not in self.all:
                elsewhere = [method.name for method in _STABLE if name in _Names.read(method).all]
                near = difflib.get_close_matches(name, self.all, n=1)
                hint = f"did you mean `{near[0]}`?" if near else "`python -m dlgc.train --help` lists them"
                if elsewhere:
                    hint = f"it is one of {' and '.join(f'`--method {other}`' for other in elsewhere)}"
                raise OptionsError(f"no such option: `{name}`\nhint: {hint}")


_STABLE = tuple(method for method in METHODS.values() if not method.experimental)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"{message}\nhint: `python -m dlgc.train --help` lists the options")


def from_command_line(argv: list[str]) -> dict[str, object]:
    """Reads flags, and the YAML file that `--config` names; flags win. What it names under `env` is exported.

    Raises:
        OptionsError: A flag or key that does not exist, or a value of the wrong type.
        ImportError: TRL is not installed.
        OSError: The YAML file cannot be read.
    """
    # Which flags there are depends on the method, and that on flags: so they are read twice.
    first = _parse(argv, _Names.read(*_STABLE), strict=False)
    config = Path(cast("str", first["config"])) if "config" in first else None
    written = _from_yaml(config) if config else {}
    names = _Names.read(_method({**written, **first}))
    given = _parse(argv, names)
    given.pop("config", None)
    if config is None:
        return given
    try:
        return {**_typed(written, names), **given}
    except OptionsError as error:
        raise OptionsError(f"`{config}`: {error}") from error


def _method(given: Mapping[str, object]) -> Method:
    """The method that is asked for, or the one for what a dataset holds."""
    if (asked := given.get("method")) is not None:
        return methods.of(str(asked))
    folder = Path(str(given.get("data_path") or "")).expanduser()
    if (folder / "manifest.json").is_file():
        return methods.of(methods.BY_ROWS.get(methods.kind(dlgc.manifest(folder)), "sft"))
    return METHODS["sft"]


def _sources(of: Iterable[Method]) -> tuple[type, ...]:
    configs = [method.config() for method in of]
    from trl import ModelConfig

    return (Own, *dict.fromkeys(configs), ModelConfig)


def _parse(argv: list[str], names: _Names, *, strict: bool = True) -> dict[str, object]:
    sources = _sources(names.methods)
    from trl import TrlParser

    theirs = TrlParser(list(sources), add_help=False, conflict_handler="resolve")
    parser = _Parser(parents=[theirs], add_help=False, allow_abbrev=False, conflict_handler="resolve")
    parser.add_argument("shards", nargs="?")
    parser.add_argument("--config")
    absent = object()  # tells what was given from defaults
    namespace = argparse.Namespace(**dict.fromkeys([*names.all, "config"], absent))
    found, unknown = parser.parse_known_args(_spelled_out(argv, names.switches), namespace)
    if strict:
        names.check(word.lstrip("-").partition("=")[0].replace("-", "_") for word in unknown if word.startswith("--"))
    if unknown and strict:
        raise OptionsError(f"expected one dataset, found also {', '.join(f'`{word}`' for word in unknown)}")
    given = {name: value for name, value in vars(found).items() if value is not absent}
    shards = given.pop("shards")
    if shards is not None and given.setdefault("data_path", shards) != shards:
        raise OptionsError(f"two datasets: `{shards}` and `--data_path {given['data_path']}`")
    return given


def _spelled_out(argv: list[str], switches: frozenset[str]) -> list[str]:
    """Flags as TRL's parser takes them: its names for the guide's, and `=true` after a bare switch.

    Otherwise `--full shards/` would take the folder for the value of the switch.
    """
    words = []
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag == word and flag.startswith("--") and name in switches and following.lower() not in _WORDS:
            words.append(f"--{name}=true")
        elif flag.startswith("--") and name in ALIASES:
            words.append(f"--{ALIASES[name]}{equals}{value}")
        else:
            words.append(word)
    return words


def _from_yaml(path: Path) -> dict[str, object]:
    import yaml  # type: ignore[import-untyped]  # its types are a package of their own

    text = path.read_text(encoding="utf-8")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionsError(f"`{path}`: {error}") from error
    if not isinstance(found, dict):
        raise OptionsError(f"`{path}`: expected a mapping from options to values")
    exported = found.pop("env", None) or {}
    if not isinstance(exported, dict):
        raise OptionsError(f"`{path}`: `env` is to be a mapping from names to values")
    os.environ.update({str(name): str(value) for name, value in exported.items()})
    return {str(name): value for name, value in found.items()}


def _typed(found: dict[str, object], names: _Names) -> dict[str, object]:
    """Types what YAML holds as the flags are typed: `2e-4` is a string to YAML. Lists and mappings stay as they are."""
    names.check(found)
    several = {name: value for name, value in found.items() if isinstance(value, list | dict)}
    words = [
        f"--{name}={json.dumps(value) if isinstance(value, bool) else value}"
        for name, value in found.items()
        if name not in several and value is not None
    ]
    return {**_parse(words, names), **{ALIASES.get(name, name): value for name, value in several.items()}}


def _refuse(found: dict[str, object], method: Method) -> None:
    if found.get("train_on_assistant_only") is False:
        raise OptionsError(f"`train_on_assistant_only false` is not offered: {LABELS}")
    if found.get("average_tokens_across_devices") is False:
        raise OptionsError(
            "`average_tokens_across_devices false` is not taken: the loss would depend on how many processes train, as "
            "each would count only its own trained tokens"
        )
    if "simpo_gamma" in found and method.name != "simpo":
        raise OptionsError(f"`simpo_gamma` is an option of `--method simpo`, and the method is `{method.name}`")
    for name, reason in {**REFUSED, **method.refused}.items():
        value = found.pop(name, None)
        if value not in (None, False, "no"):
            raise OptionsError(f"`{name} {value}` is not taken: {reason}")


def _full(found: dict[str, object], model: str | None) -> bool:
    """Whether every weight is trained."""
    small = [name for name in ("load_in_4bit", "load_in_8bit") if found.get(name)]
    full, adapter = found.get("full"), found.pop("use_peft", None)
    if full is not None and full is adapter:
        raise OptionsError(f"`full {full}` and `use_peft {adapter}` contradict each other")
    if full is None and adapter is not None:
        full = not adapter
    if full is None:
        full = model is None and not small and not any(name.startswith("lora_") for name in found)
    adapters = [name for name in found if name.startswith("lora_")]
    if full and adapters:
        raise OptionsError(f"`{adapters[0]}` says nothing with `full`, which trains every weight and no adapter")
    if full and found.get("merge"):
        raise OptionsError("`merge` and `full` contradict each other: without an adapter there is nothing to merge")
    if full and small:
        raise OptionsError(f"`full` and `{small[0]}` contradict each other: a quantised model is trained by an adapter")
    return bool(full)
