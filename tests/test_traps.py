"""The trap test: each mistake that training makes in silence elsewhere is provoked, and is impossible or an error.

They are those of TRL and its users: rows cut at 1,024 tokens, labels that are not there, prompts that are trained,
templates that differ, packed examples that see each other. Most are refused before a model is loaded.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from training import MARKS, UNTRAINED, chat, edit, pair, prepared, write_lines, write_pairs, write_rows

import dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = MARKS

Row = dict[str, Any]


@pytest.fixture(scope="module")
def shards(model: Path) -> Path:
    said = [chat(f"Count {n}.", f"{n}, {n + 1}.") for n in range(4)]
    dlgc.compile(write_lines(model.parent / "d.jsonl", said), model.parent / "shards", tokenizer=model)
    return model.parent / "shards"


@pytest.fixture(scope="module")
def packed(model: Path, shards: Path) -> Path:
    dlgc.repack(shards, model.parent / "packed", packing="bfd-global")
    return model.parent / "packed"


@pytest.fixture(scope="module")
def pairs(model: Path) -> list[Row]:
    said = [[{"role": "assistant", "content": text}] for text in ("Yes, of course it is.", "No.")]
    return [pair(model, [{"role": "user", "content": f"Is it {n}?"}], *said) for n in range(2)]


@pytest.fixture
def refused(model: Path, tmp_path: Path) -> Callable[..., None]:
    def check(folder: Path, words: str, network: Path = model, **options: object) -> None:
        with pytest.raises((dlgc.ShardError, dlgc.OptionsError), match=words):
            prepared(folder, network, tmp_path / "refused", **options)

    return check


@pytest.fixture
def changed(shards: Path, tmp_path: Path) -> Callable[[Callable[[Row], Row]], Path]:
    """Copies the dataset with other rows."""

    def change(how: Callable[[Row], Row]) -> Path:
        folder = shutil.copytree(shards, tmp_path / "changed")
        rows = dlgc.scan(shards).select("input_ids", "labels").collect().to_dicts()
        write_rows(folder, [how(row) for row in rows])
        return folder

    return change


def test_rows_beyond_trls_default_length_are_not_cut(model: Path, tmp_path: Path) -> None:
    """TRL cuts at 1,024 tokens unless told otherwise, pairs as well as sequences."""
    long = " ".join(str(n) for n in range(900))
    said = [[{"role": "assistant", "content": text}] for text in (long, "No.")]
    row = pair(model, [{"role": "user", "content": "Count."}], *said)
    assert len(row["chosen_ids"]) > 1024
    shards = write_pairs(tmp_path / "pairs", model, [row])
    batch = next(iter(prepared(shards, model, tmp_path / "out", full=True).trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[1] == len(row["prompt_ids"]) + len(row["chosen_ids"])
    assert int(batch["completion_mask"][0].sum()) == len(row["chosen_ids"])


def test_rows_longer_than_their_dataset_allows_are_refused(
    refused: Callable[..., None], pairs: list[Row], model: Path, tmp_path: Path
) -> None:
    """TRL drops pairs whose prompt alone is as long as that."""
    shards = write_pairs(tmp_path / "pairs", model, pairs)
    edit(shards / "manifest.json", max_length=len(pairs[0]["prompt_ids"]))
    refused(shards, "2 rows are longer than `max_length`")


def test_rows_without_labels_are_refused(refused: Callable[..., None], changed: Callable[..., Path]) -> None:
    """TRL trains every token where there are none."""
    refused(changed(lambda row: {"input_ids": row["input_ids"]}), "have no `labels`: what is trained")


def test_pairs_without_labels_are_refused(
    refused: Callable[..., None], pairs: list[Row], model: Path, tmp_path: Path
) -> None:
    """TRL trains all that follows the prompt."""
    without = [{key: value for key, value in row.items() if key != "chosen_labels"} for row in pairs]
    refused(write_pairs(tmp_path / "pairs", model, without), "have no `chosen_labels`: what is trained")


def test_rows_of_which_nothing_is_trained_are_refused(
    refused: Callable[..., None], changed: Callable[..., Path], pairs: list[Row], model: Path, tmp_path: Path
) -> None:
    """TRL drops them, or learns nothing from them, or makes of them a loss that is no number."""
    cut = [True]
    first = changed(lambda row: {**row, "labels": [UNTRAINED] * len(row["labels"])} if cut and cut.pop() else row)
    refused(first, "1 rows have no trained token in the row")
    untrained = {**pairs[0], "rejected_labels": [UNTRAINED] * len(pairs[0]["rejected_ids"])}
    refused(write_pairs(tmp_path / "one", model, [pairs[1], untrained]), "1 rows have no trained token in `rejected`")
    empty = {**pairs[0], "rejected_ids": [], "rejected_labels": []}
    refused(write_pairs(tmp_path / "two", model, [pairs[1], empty]), "1 rows have no trained token in `rejected`")


def test_labels_that_do_not_fit_their_ids_are_refused(
    refused: Callable[..., None], changed: Callable[..., Path]
) -> None:
    refused(changed(lambda row: {**row, "labels": row["labels"][:-1]}), "4 rows have fewer or more labels than ids")


def test_a_model_that_means_something_else_by_ids_is_refused(
    refused: Callable[..., None], shards: Path, model: Path, tmp_path: Path
) -> None:
    """Another vocabulary, another template, other special tokens: the loss looks as it should."""
    small = shutil.copytree(model, tmp_path / "small")
    edit(small / "config.json", vocab_size=100)
    refused(shards, "has 100 embeddings", small)
    other = shutil.copytree(model, tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    refused(shards, "a server would show the model other prompts", other)
    ends = shutil.copytree(model, tmp_path / "ends")
    other_end = {"eos_token": "<|im_start|>"}
    edit(ends / "tokenizer_config.json", **other_end)
    refused(shards, r"the `eos_token` of `.*ends` is '<|im_start|>', that of", ends)
    prepared(shards, ends, tmp_path / "allowed", allow_tokenizer_mismatch=True)


def test_nothing_is_packed_or_cut_again(refused: Callable[..., None], packed: Path) -> None:
    """TRL's `packing` on packed rows drops their borders."""
    refused(packed, "`packing True` is not taken", packing=True)
    refused(packed, "`max_length 64` is not taken", max_length=64)
    refused(packed, "`padding_free True` is not taken", padding_free=True)


def test_packed_rows_without_borders_are_refused(refused: Callable[..., None], packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "packed")
    write_rows(folder, dlgc.scan(packed).select("input_ids", "labels").collect().to_dicts())
    refused(folder, "its rows have no `seq_lengths`: examples would see each other")
    rows = dlgc.scan(packed).select("input_ids", "labels", "seq_lengths").collect().to_dicts()
    write_rows(folder, [{**row, "seq_lengths": row["seq_lengths"][:-1]} for row in rows])
    refused(folder, "have `seq_lengths` that do not add up to their length")


def test_packed_rows_are_refused_where_their_examples_see_each_other(
    packed: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that does not look at positions, as those without attention, sees all of a row."""
    from transformers import LlamaForCausalLM

    from dlgc.train import checks

    job = prepared(packed, model, tmp_path / "good", full=True)
    assert job.trainer.args.padding_free
    own = LlamaForCausalLM.forward

    def leaky(self: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401, ARG001  # theirs
        return own(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", leaky)
    with pytest.raises(dlgc.ShardError, match="see each other in this model, with attention `sdpa`"):
        checks.isolated(prepared(packed, model, tmp_path / "bad", full=True).trainer, job.shards)


@pytest.mark.parametrize("form", ["torch", "numpy"])
def test_tensors_in_pairs_are_refused(form: str, pairs: list[Row], model: Path, tmp_path: Path) -> None:
    """TRL's collator adds the ids of prompt and answer, number by number, where they are tensors of one length."""
    job = prepared(write_pairs(tmp_path / "pairs", model, pairs), model, tmp_path / "out", full=True)
    row = job.shards.rows.with_format(form)[0]
    with pytest.raises(dlgc.ShardError, match="expected a list: TRL would add the ids of prompt and answer"):
        job.trainer.data_collator([row])


def test_rows_of_another_kind_than_the_method_are_refused(
    refused: Callable[..., None], shards: Path, pairs: list[Row], model: Path, tmp_path: Path
) -> None:
    refused(shards, r"`--method dpo` trains on rows of kind `preference`, and those of .* are `sft`", method="dpo")
    folder = write_pairs(tmp_path / "pairs", model, pairs)
    refused(folder, "those of .* are `preference`\nhint: they are for `--method dpo`, `simpo`, `orpo`", method="sft")


def test_an_option_that_would_be_ignored_is_refused(refused: Callable[..., None], shards: Path) -> None:
    """TRL's own scripts drop keys that they do not know."""
    refused(shards, "no such option: `lora_rank`", lora_rank=8)
    refused(shards, "`lora_r` says nothing with `full`", full=True, lora_r=8)


def test_config_with_an_equals_sign_is_read(shards: Path, tmp_path: Path) -> None:
    """TRL's parser ignores `--config=x.yaml`."""
    from dlgc.train import Options
    from dlgc.train.options import from_command_line

    (tmp_path / "x.yaml").write_text(json.dumps({"lr": 0.125}), encoding="utf-8")
    options = Options.of(from_command_line([str(shards), f"--config={tmp_path / 'x.yaml'}"]))
    assert options.training["learning_rate"] == 0.125
