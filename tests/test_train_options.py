"""The options of a training: the guide's names and TRL's, from flags, YAML and keywords; nothing is taken silently."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from training import MARKS

import dlgc
from dlgc.train.methods import METHODS
from dlgc.train.options import HELP, REFUSED, Options, from_command_line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS

GUIDE = """
    --model somebody/Model-8B --data_path shards --chat_template llama3.jinja --train_on_assistant_only true
    --lora_r 16 --lora_alpha 32 --lora_dropout 0.1 --bf16 true --gradient_checkpointing true
    --per_device_train_batch_size 2 --accumulation_steps 8 --lr 2e-5 --epochs 3 --max_seq_length 4096
"""


def read(line: str) -> Options:
    return Options.of(from_command_line(line.split()))


def test_the_command_of_the_guide_is_understood_and_says_the_defaults() -> None:
    options = read(GUIDE)

    assert (options.model, str(options.data)) == ("somebody/Model-8B", "shards")
    assert (options.max_seq_length, options.chat_template, options.full) == (4096, "llama3.jinja", False)
    plain = read("shards --model somebody/Model-8B")
    assert options.loading == plain.loading
    assert options.training == plain.training | {"bf16": True, "gradient_checkpointing": True}
    assert plain.training["learning_rate"] == 2e-5


def test_trls_names_and_the_guides_mean_the_same() -> None:
    theirs = "--model_name_or_path m --learning_rate 1e-4 --num_train_epochs 2 --gradient_accumulation_steps 4"
    assert read(f"shards {theirs}") == read("shards --model m --lr 1e-4 --epochs=2 --accumulation-steps 4")


def test_every_option_of_trl_goes_by_its_own_name() -> None:
    options = read(
        "shards --model m --warmup_steps 0.1 --use_dora --lora_target_modules q_proj v_proj --neftune_noise_alpha 5"
    )

    assert options.training["warmup_steps"] == 0.1
    assert options.training["neftune_noise_alpha"] == 5.0
    assert options.loading["use_dora"] is True
    assert options.loading["lora_target_modules"] == ["q_proj", "v_proj"]


def test_a_bare_switch_does_not_swallow_the_dataset() -> None:
    options = read("--full --bf16 false --sample shards --model m --no_gradient_checkpointing")

    assert (options.full, options.sample, str(options.data)) == (True, True, "shards")
    assert (options.training["bf16"], options.training["gradient_checkpointing"]) == (False, False)


def test_without_a_model_every_weight_of_the_built_in_one_is_trained_unless_an_adapter_is_asked_for() -> None:
    assert read("shards").full
    assert read("shards").training["max_steps"] == 20
    assert "max_steps" not in read("shards --epochs 1").training
    assert not read("shards --lora_r 4").full
    assert not read("shards --load_in_4bit").full
    assert not read("shards --use_peft").full
    assert not read("shards --model m").full
    assert read("shards --model m --use_peft false").full


@pytest.mark.parametrize("flag", ["--config {}", "--config={}"])
def test_yaml_is_read_and_flags_win(flag: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "data_path: elsewhere\nmodel: m\nlr: 2e-4\nepochs: 2\nbf16: true\nmax_length: null\n"
        "lora_target_modules: [q_proj, v_proj]\nlr_scheduler_kwargs: {num_cycles: 2}\nresume_from_checkpoint: true\n"
    )
    options = read(f"shards --epochs 1 {flag.format(tmp_path / 'x.yaml')}")

    assert (str(options.data), options.model, options.resume) == ("shards", "m", True)
    assert options.training["learning_rate"] == 2e-4
    assert options.training["num_train_epochs"] == 1
    assert options.training["bf16"] is True
    assert options.training["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert options.loading["lora_target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1e-4\n", "x.yaml`: no such option: `lerning_rate`\nhint: did you mean `learning_rate`?"),
        ("foo: null\n", "no such option: `foo`"),
        ("epochs: many\n", "x.yaml`: .*invalid float value: 'many'"),
        ("- lr\n", "expected a mapping"),
        ("lr: [1\n", "x.yaml`: "),
        ("packing: true\n", "`packing True` is not taken: the rows of a dataset are final"),
    ],
)
def test_what_yaml_says_wrongly_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(dlgc.OptionsError, match=message):
        read(f"shards --config={tmp_path / 'x.yaml'}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected a dataset, found none"),
        ("shards --lora_rank 8", "no such option: `lora_rank`"),
        ("shards --accumulation_step 8", "did you mean `accumulation_steps`?"),
        ("shards more", "found also `more`"),
        ("shards --data_path others", "two datasets: `shards` and `--data_path others`"),
        ("shards --lr fast", "invalid float value: 'fast'"),
        ("shards --train_on_assistant_only false", "not offered: the labels in the shards say already"),
        ("shards --max_length 512", "`max_length 512` is not taken: the rows of a dataset are final"),
        ("shards --packing", "`packing True` is not taken"),
        ("shards --assistant_only_loss true", "the labels in the shards"),
        ("shards --dataset_text_field text", "the rows of a dataset are final"),
        ("shards --chat_template_path x", "those that the shards were made with"),
        ("shards --trust_remote_code", "never run"),
        ("shards --push_to_hub", "hf upload"),
        ("shards --remove_unused_columns true", "the rows of a dataset are final"),
        ("shards --dataloader_drop_last", "nothing is cut, added, packed or dropped"),
        ("shards --average_tokens_across_devices false", "only its own trained tokens"),
        ("shards --method ppo", "no such method: `ppo`\nhint: there are `sft`, `dpo`, `simpo`, `kto`, `orpo`"),
        ("shards --beta 0.2", "no such option: `beta`\nhint: it is one of `--method dpo` and `--method simpo`"),
        ("shards --method dpo --packing", "no such option: `packing`\nhint: it is one of `--method sft`"),
        ("shards --method dpo --truncation_mode keep_end", "the rows of a dataset are final"),
        ("shards --method dpo --simpo_gamma 1", "an option of `--method simpo`, and the method is `dpo`"),
        ("shards --method simpo --loss_type hinge", "SimPO has no reference model, and one loss"),
        ("shards --method kto --precompute_ref_log_probs", "depends on its batch"),
        ("shards --full --load_in_4bit", "contradict each other"),
        ("shards --full --use_peft", "contradict each other"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(line: str, message: str) -> None:
    with pytest.raises(dlgc.OptionsError, match=re.escape(message)):
        read(line)


def test_each_method_has_the_options_of_trls_and_the_defaults_of_the_guide_or_of_trl() -> None:
    sft, dpo, simpo = (read(f"shards --model m --method {name}") for name in ("sft", "dpo", "simpo"))
    assert sft == read("shards --model m")
    assert (sft.training["per_device_train_batch_size"], sft.loading["lora_dropout"]) == (2, 0.1)
    for options in (dpo, simpo):
        assert options.training == {"report_to": "none", "output_dir": f"runs/{options.method}"}
        assert options.loading == {"lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear"}
    assert (dpo.simpo_gamma, simpo.simpo_gamma) == (None, 0.5)
    asked = read("shards --model m --method=dpo --beta 0.3 --loss_type hinge ipo --loss_weights 1 0.5")
    assert asked.training["beta"] == 0.3
    assert asked.training["loss_type"] == ["hinge", "ipo"]


@pytest.mark.parametrize(("rows", "method"), [("sft", "sft"), ("preference", "dpo"), ("kto", "kto"), (None, "sft")])
def test_the_method_is_that_for_what_the_shards_hold(rows: str | None, method: str, tmp_path: Path) -> None:
    options = {} if rows is None else {"rows": rows}
    manifest = {"format": "dlgc-shards", "format_version": 2, "options": options}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert Options.of(from_command_line([str(tmp_path)])).method == method
    (tmp_path / "x.yaml").write_text(f"data_path: {tmp_path}\nmethod: simpo\nbeta: 2\n")
    options = Options.of(from_command_line(["--config", str(tmp_path / "x.yaml")]))
    assert (options.method, options.training["beta"]) == ("simpo", 2.0)


def test_what_yaml_names_under_env_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLGC_TEST", "before")
    (tmp_path / "x.yaml").write_text("env: {DLGC_TEST: 7}\nlr: 1e-4\n")
    assert read(f"shards --config {tmp_path / 'x.yaml'}").training["learning_rate"] == 1e-4
    assert os.environ["DLGC_TEST"] == "7"


def test_keywords_are_as_strict_as_flags() -> None:
    with pytest.raises(dlgc.OptionsError, match="no such option: `lora_rank`"):
        Options.of({"data_path": "shards", "lora_rank": 8})
    with pytest.raises(dlgc.OptionsError, match="given twice: `lr` and `learning_rate`"):
        Options.of({"data_path": "shards", "lr": 1e-4, "learning_rate": 1e-5})


def test_the_help_names_only_options_that_exist_and_all_of_the_guides() -> None:
    from dlgc.train.options import _Names

    every = _Names.read(*METHODS.values()).all
    named = set(re.findall(r"--([a-z_0-9]+)", HELP))
    others = {"nproc_per_node", "config", "help"}  # the first is torchrun's
    assert named - others <= every
    assert set(re.findall(r"--([a-z_0-9]+)", GUIDE)) <= named
    assert set(REFUSED) <= every
    for method in METHODS.values():
        assert set(method.contract) | set(method.refused) <= _Names.read(method).all
    assert max(map(len, HELP.splitlines())) <= 120


def test_the_help_and_a_bare_import_need_no_torch() -> None:
    script = (
        "import sys, dlgc.train, dlgc.train.__main__ as m; code = m.main(['--help']); "
        "sys.exit(code or 'torch' in sys.modules or 'trl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == HELP


def test_telemetry_is_off() -> None:
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY


def test_the_plan_counts_steps_as_the_trainer_does() -> None:
    from dlgc.train.show import steps

    guide = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "world_size": 1}
    assert steps(121, SimpleNamespace(**guide, num_train_epochs=3, max_steps=-1)) == (24, 3.0)
    assert steps(3, SimpleNamespace(**guide, num_train_epochs=1.5, max_steps=-1)) == (2, 1.5)
    assert steps(121, SimpleNamespace(**guide, num_train_epochs=3, max_steps=4)) == (4, 0.5)


def test_errors_are_said_in_words_with_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    from dlgc.train.__main__ import main

    assert main(["shards", "--max_length", "9"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `max_length 9` is not taken")
    assert "hint: compile again" in said
    assert main([]) == 2


def test_a_row_is_shown_with_its_targets_marked_and_nothing_that_steers_the_terminal() -> None:
    pytest.importorskip("torch")
    from dlgc.train.show import excerpt

    def decode(ids: list[int]) -> str:
        return "".join(map(chr, ids))

    ids = [ord(letter) for letter in "ask\x1b[2Janswer"]
    labels = [-100] * 7 + ids[7:]
    assert excerpt(ids, labels, decode, colour=False) == "ask\\x1b[2J[[answer]]"
    assert excerpt(ids, labels, decode, colour=True) == "ask\\x1b[2J\x1b[32manswer\x1b[0m"
    shown = excerpt([97] * 5000 + [98], [-100] * 5000 + [98], decode, colour=False)
    assert shown == "a" * 200 + " … " + "a" * 200 + "[[b]]"
    shown = excerpt([10] * 50, [-100] * 50, decode, colour=True)
    assert shown.count("\n") < 24
    assert shown.endswith("…")
