"""Training: rows reach the model as they were compiled, only their targets are learnt, and the result can be served.

The model is random and tiny, the tokenizer the built-in one under another name, so that no dataset here is a demo.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from training import MARKS

import dlgc

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlgc.train.run import Job

ROOT = Path(__file__).resolve().parent.parent
DIALOGUES = ROOT / "examples" / "dialogues"
GUIDE = DIALOGUES / "guide.jsonl"
UNTRAINED = -100

pytestmark = MARKS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a tokenizer with its template, and random weights."""
    from dlgc.train.data import Shards
    from dlgc.train.model import write_builtin

    work = tmp_path_factory.mktemp("model")
    dlgc.compile(GUIDE, work / "demo")
    folder = work / "模型" / "tiny"
    shutil.copytree(work / "demo" / "tokenizer", folder)
    write_builtin(folder, Shards.open(work / "demo"), seed=0)
    shutil.copy(work / "demo" / "tokenizer" / "generation_config.json", folder)
    return folder


@pytest.fixture(scope="module")
def shards(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's three dialogues, compiled for the model."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    dlgc.compile(GUIDE, folder, tokenizer=model)
    return folder


@pytest.fixture(scope="module")
def job(model: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A training of every weight that is ready to begin, in batches of two."""
    return prepared(shards, model, tmp_path_factory.mktemp("job"), full=True)


def prepared(shards: Path, model: Path, output: Path, **options: object) -> Job:
    from dlgc.train import Options
    from dlgc.train.run import prepare

    given = {"data_path": shards, "model": model, "output_dir": output, "gradient_checkpointing": False}
    return prepare(Options.of({**given, **options}))


def train(shards: Path, model: Path | None, output: Path, **options: object) -> Any:  # noqa: ANN401  # imported late
    from dlgc.train import sft

    given = {"learning_rate": 1e-2, "accumulation_steps": 1, "disable_tqdm": True, "gradient_checkpointing": False}
    return sft(shards, model=model, output_dir=output, **{**given, **options})


def rows_of(shards: Path) -> dict[tuple[int, ...], list[int]]:
    """Labels of the rows, by their ids."""
    frame = dlgc.scan(shards).select("input_ids", "labels").collect()
    return {tuple(row["input_ids"]): row["labels"] for row in frame.to_dicts()}


def batches(job: Job) -> list[dict[str, Any]]:
    return [dict(batch) for batch in job.trainer.get_train_dataloader()]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_collated_batches_are_the_rows_of_the_shards(job: Job, shards: Path) -> None:
    import torch

    rows = rows_of(shards)
    seen, trained = [], 0
    for batch in batches(job):
        assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(batch, torch.int64)
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            assert labels[:length].tolist() == rows[tuple(ids[:length].tolist())]
            assert set(labels[length:].tolist()) <= {UNTRAINED}
            seen.append(tuple(ids[:length].tolist()))
            trained += int((labels != UNTRAINED).sum())
    assert sorted(seen) == sorted(rows)
    assert trained == dlgc.manifest(shards)["splits"]["train"]["trained_tokens"]


def test_loss_is_the_mean_over_exactly_the_trained_tokens(job: Job) -> None:
    import torch

    for batch in batches(job):
        loss = job.trainer.compute_loss(job.trainer.model, dict(batch))
        with torch.no_grad():
            logits = job.trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        by_hand = [
            torch.nn.functional.cross_entropy(logits[row, place - 1], batch["labels"][row, place])
            for row, place in (batch["labels"] != UNTRAINED).nonzero().tolist()
        ]
        assert float(loss.detach()) == pytest.approx(float(torch.stack(by_hand).mean()), abs=1e-5)


def test_gradient_reaches_only_places_that_predict_a_trained_token(job: Job) -> None:
    """TRL never builds the logits, so the probe is one step before: a logit is linear in the hidden state there."""
    import torch

    batch = batches(job)[0]
    hidden: list[torch.Tensor] = []

    def keep(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401  # theirs
        output.last_hidden_state.retain_grad()
        hidden.append(output.last_hidden_state)

    hook = job.trainer.model.model.register_forward_hook(keep)
    try:
        job.trainer.compute_loss(job.trainer.model, dict(batch)).backward()
    finally:
        hook.remove()
        job.trainer.model.zero_grad()

    assert hidden[0].grad is not None
    touched = hidden[0].grad.abs().sum(-1) > 0
    predicts = torch.zeros_like(touched)
    predicts[:, :-1] = batch["labels"][:, 1:] != UNTRAINED
    assert touched.tolist() == predicts.tolist()
    assert predicts.any()
    assert not predicts.all()


def test_only_labels_other_than_minus_100_count(job: Job) -> None:
    def loss(changed: dict[str, Any]) -> float:
        return float(job.trainer.compute_loss(job.trainer.model, dict(changed)).detach())

    batch = batches(job)[0]
    trained = (batch["labels"][0] != UNTRAINED).nonzero().flatten().tolist()
    untrained = (batch["labels"][0, 1:] == UNTRAINED).nonzero().flatten().tolist()
    for place in (trained[0], trained[-1], untrained[0] + 1):
        labels = batch["labels"].clone()
        labels[0, place] = (int(batch["input_ids"][0, place]) + 7) % 6000
        assert loss({**batch, "labels": labels}) != loss(batch)
    # the first token of a row is predicted by nothing, so its label does not matter
    labels = batch["labels"].clone()
    labels[0, 0] = 7
    assert loss({**batch, "labels": labels}) == loss(batch)


def test_a_row_beyond_trls_default_length_is_trained_to_its_last_stop_token(model: Path, tmp_path: Path) -> None:
    lines = (DIALOGUES / "chat_en.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    joined = [message for line in lines for message in json.loads(line)["conversation"] if message["role"] != "system"]
    (tmp_path / "long.jsonl").write_text(json.dumps({"conversation": joined}), encoding="utf-8")
    dlgc.compile(tmp_path / "long.jsonl", tmp_path / "shards", tokenizer=model)

    job = prepared(tmp_path / "shards", model, tmp_path / "out")
    (batch,) = batches(job)

    size = dlgc.manifest(tmp_path / "shards")["splits"]["train"]
    assert size["tokens"] > 2 * 1024
    assert batch["input_ids"].shape == (1, size["tokens"])
    assert int((batch["labels"] != UNTRAINED).sum()) == size["trained_tokens"]
    last = (batch["labels"][0] != UNTRAINED).nonzero()[-1]
    assert int(batch["labels"][0, last]) in dlgc.manifest(tmp_path / "shards")["stop_ids"]
    assert int(last) > size["tokens"] - 4


def test_packed_rows_are_kept_apart(model: Path, shards: Path, tmp_path: Path) -> None:
    """The compiler does not pack yet; a dataset that is packed must not let its examples see each other."""
    import pyarrow as pa

    folder = tmp_path / "packed"
    shutil.copytree(shards, folder)
    rows = rows_of(shards)
    lengths = [len(ids) for ids in rows]
    whole = {
        "input_ids": [[token for ids in rows for token in ids]],
        "labels": [[label for labels in rows.values() for label in labels]],
        "seq_lengths": [lengths],
    }
    table = pa.table({name: pa.array(value, pa.list_(pa.int32())) for name, value in whole.items()})
    with pa.ipc.new_stream(str(folder / "train" / "data-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    edit(folder / "manifest.json", splits={"train": {"rows": 1, "tokens": sum(lengths), "trained_tokens": 1}})

    (batch,) = batches(prepared(folder, model, tmp_path / "out"))

    assert batch["position_ids"][0].tolist() == [place for length in lengths for place in range(length)]
    assert "attention_mask" not in batch


KINDS: dict[str, dict[str, object]] = {"full": {"full": True}, "lora": {}, "qlora": {"load_in_4bit": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss_and_leave_what_a_server_needs(
    kind: str, model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    trained = train(shards, model, output, num_train_epochs=4, per_device_train_batch_size=3, **KINDS[kind])

    assert trained.steps == 4
    assert "steps          4, each of up to 3 rows; 4 epochs" in capsys.readouterr().err
    assert trained.last_loss < trained.first_loss - 0.05
    assert trained.trained_tokens == dlgc.manifest(shards)["splits"]["train"]["trained_tokens"]
    for path in (shards / "tokenizer").iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes()
    assert json.loads((output / "generation_config.json").read_text())["eos_token_id"] == 1
    weights = {"model.safetensors", "config.json"} if kind == "full" else {"adapter_model.safetensors"}
    assert weights <= files(output)
    for path in [*output.rglob("*.json"), *output.rglob("README.md")]:
        text = path.read_text(encoding="utf-8")
        assert str(model) not in text, path
        assert json.dumps(str(model)) not in text, path
    if kind != "full":
        adapter = json.loads((output / "adapter_config.json").read_text(encoding="utf-8"))
        assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)
        assert adapter["base_model_name_or_path"] == "tiny"

    origin = json.loads((output / "dlgc.json").read_text(encoding="utf-8"))
    assert origin["data"]["manifest_sha256"] == hashlib.sha256((shards / "manifest.json").read_bytes()).hexdigest()
    assert origin["data"]["ledger"] == dlgc.manifest(shards)["ledger"]
    assert (origin["model"]["base"], origin["model"]["base_bits"]) == ("tiny", 4 if kind == "qlora" else None)


def test_precision_is_what_the_device_has_and_weights_that_are_all_trained_stay_float32(
    shards: Path, tmp_path: Path
) -> None:
    from dlgc.train import Options
    from dlgc.train.run import _configs

    def found(**options: object) -> tuple[bool, str]:
        given = {"data_path": shards, "model": "m", "output_dir": tmp_path, "use_cpu": True, **options}
        config, loading = _configs(Options.of(given))
        assert config.max_length is None
        assert config.model_init_kwargs["dtype"] == loading.dtype
        return config.bf16, loading.dtype

    assert found() == (False, "float32")
    assert found(bf16=True) == (True, "bfloat16")
    assert found(bf16=True, full=True) == (True, "float32")
    assert found(load_in_4bit=True) == (True, "bfloat16")
    assert found(bf16=True, dtype="float16") == (True, "float16")


def test_a_resumed_training_ends_as_an_unbroken_one(model: Path, shards: Path, tmp_path: Path) -> None:
    options: dict[str, object] = {"max_steps": 3, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 1}
    unbroken = train(shards, model, tmp_path / "unbroken", **options)
    shutil.copytree(tmp_path / "unbroken" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = train(shards, model, tmp_path / "resumed", resume_from_checkpoint=True, **options)

    assert resumed == replace(unbroken, output_dir=tmp_path / "resumed")
    name = "adapter_model.safetensors"
    assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_raw_dialogues_are_compiled_first_and_the_built_in_model_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train(GUIDE, None, tmp_path / "out", max_steps=1, max_seq_length=512, save_strategy="no", sample=True)

    assert trained.steps == 1
    found = dlgc.manifest(tmp_path / "out" / "shards")
    assert (found["max_length"], found["demo"]) == (512, True)
    assert {"model.safetensors", "base"} <= files(tmp_path / "out")
    said = capsys.readouterr().err
    assert "3 rows, 0 records rejected" in said
    assert "what is trained marked" in said
    assert "[[" in said
    assert "a random model: noise" in said


def test_raw_dialogues_are_compiled_with_the_tokenizer_of_the_model(model: Path, tmp_path: Path) -> None:
    job = prepared(GUIDE, model, tmp_path / "out")

    assert not job.shards.manifest["demo"]
    assert job.shards.folder == tmp_path / "out" / "shards"


def test_the_command_trains(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "lr: 3e-3\nmax_steps: 50\nsave_strategy: 'no'\nreport_to: none\nlogging_steps: 2\n"
    )
    command = [sys.executable, "-m", "dlgc.train", str(shards), f"--config={tmp_path / 'x.yaml'}", "--max_steps", "3"]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert "learning rate  0.003" in done.stderr
    assert "in 3 steps; saved in" in done.stderr
    origin = json.loads((tmp_path / "out" / "dlgc.json").read_text(encoding="utf-8"))
    assert (origin["steps"], origin["model"]["base"]) == (3, "built-in")
    assert origin["last_loss"] < origin["first_loss"]


# What is refused. Nothing of it comes to a step; most of it not even to loading the model.


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def refused(shards: Path, model: Path | None, output: Path, *words: str, **options: object) -> None:
    with pytest.raises((dlgc.ShardError, dlgc.OptionsError)) as raised:
        train(shards, model, output, **options)
    for word in words:
        assert word in str(raised.value)


def test_a_folder_whose_compilation_was_interrupted_is_refused(model: Path, shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    (tmp_path / "shards" / "manifest.json").rename(tmp_path / "shards" / ".dlgc-incomplete")
    refused(tmp_path / "shards", model, tmp_path / "out", "no `manifest.json`", "interrupted")


def test_a_dataset_that_is_not_there_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(tmp_path / "nowhere", model, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": {"train": {"rows": 0, "tokens": 0, "trained_tokens": 0}}}, ["nothing to train", "0 rows"]),
        (
            {"splits": {"train": {"rows": 3, "tokens": 9, "trained_tokens": 0}}},
            ["nothing to train", "0 trained tokens"],
        ),
        ({"splits": {"train": {"rows": 4, "tokens": 9, "trained_tokens": 9}}}, ["says 4 rows", "hold 3"]),
        ({"diagnostics": {"stop-not-a-token": 2}}, ["2 times `stop-not-a-token`", "hint: compile"]),
        ({"demo": True}, ["is a demo", "hint: compile again with `tokenizer="]),
        ({"vocabulary_size": 7000}, ["6144 embeddings", "go up to 6999"]),
        ({"format_version": 1}, ["expected format `dlgc-shards` version 2", "hint: compile again"]),
    ],
)
def test_a_dataset_that_must_not_be_trained_is_refused(
    changes: dict[str, object], words: list[str], model: Path, shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    edit(tmp_path / "shards" / "manifest.json", **changes)
    refused(tmp_path / "shards", model, tmp_path / "out", *words)


def test_rows_longer_than_the_positions_of_the_model_are_refused(model: Path, shards: Path, tmp_path: Path) -> None:
    longest = dlgc.scan(shards).select(pl.col("input_ids").list.len().max()).collect().item()
    shutil.copytree(model, tmp_path / "model")
    edit(tmp_path / "model" / "config.json", max_position_embeddings=longest - 1)
    refused(shards, tmp_path / "model", tmp_path / "out", f"{longest - 1} positions", f"has {longest} tokens")


def test_a_model_with_another_tokenizer_is_refused_unless_allowed(model: Path, shards: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("a") as file:
        file.write("\n")
    ours = dlgc.manifest(shards)["digests"]["tokenizer"][:12]
    refused(shards, tmp_path / "model", tmp_path / "out", "tokenizer.json", ours, "--allow_tokenizer_mismatch")
    prepared(shards, tmp_path / "model", tmp_path / "out", allow_tokenizer_mismatch=True)


@pytest.mark.parametrize("where", ["chat_template.jinja", "text", "list"])
def test_a_model_with_another_template_is_refused_unless_allowed(
    where: str, model: Path, shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "chat_template.jinja"
    other = file.read_text(encoding="utf-8") + "\n"
    if where == "chat_template.jinja":
        file.write_text(other, encoding="utf-8")
    else:
        file.unlink()
        listed = [{"name": "rag", "template": ""}, {"name": "default", "template": other}]
        edit(tmp_path / "model" / "tokenizer_config.json", chat_template=other if where == "text" else listed)
    ours = dlgc.manifest(shards)["digests"]["template"][:12]
    refused(shards, tmp_path / "model", tmp_path / "out", "chat template", ours, "--allow_template_mismatch")
    if where == "list":
        prepared(shards, tmp_path / "model", tmp_path / "out", allow_template_mismatch=True)


def test_options_of_the_compiler_must_be_those_of_the_dataset(model: Path, shards: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jinja"
    other.write_text("{{ messages }}")
    out = tmp_path / "out"
    refused(shards, model, out, "`max_seq_length` is 2048", "`max_length` 4096", "compile again", max_seq_length=2048)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()[:12]
    refused(shards, model, out, digest, "compile again", chat_template=other)
    refused(shards, model, out, "`llama3`", "no file", chat_template="llama3")
    prepared(shards, model, out, max_seq_length=4096, chat_template=shards / "tokenizer" / "chat_template.jinja")


def test_a_result_is_not_overwritten_and_neither_is_what_it_is_made_of(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "dlgc.json").write_text("{}")
    refused(shards, model, tmp_path, "holds a trained model already", "--output_dir")
    refused(shards, model, model, "is the model")
    refused(shards, model, shards, "is the data")


def test_the_command_of_the_guide_works_on_raw_dialogues_and_a_name_on_the_hub(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dlgc.train import Options
    from dlgc.train import model as models
    from dlgc.train.data import compile_raw
    from dlgc.train.options import from_command_line

    asked: list[tuple[str, str]] = []

    def fetch(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert "tokenizer*" in allow_patterns
        asked.append((name, revision))
        return str(model)

    monkeypatch.setattr(models, "snapshot_download", fetch)
    line = f"""--model meta-llama/Meta-Llama-3-8B-Instruct --data_path {GUIDE} --chat_template llama3
        --train_on_assistant_only true --lora_r 16 --lora_alpha 32 --lora_dropout 0.1 --bf16 true
        --gradient_checkpointing true --per_device_train_batch_size 2 --accumulation_steps 8 --lr 2e-5 --epochs 3
        --max_seq_length 4096 --output_dir {tmp_path}"""
    compile_raw(Options.of(from_command_line(line.split())))
    assert asked == [("meta-llama/Meta-Llama-3-8B-Instruct", "main")]
    manifest = dlgc.manifest(tmp_path / "shards")
    assert (manifest["max_length"], manifest["demo"]) == (4096, False)
    digest = hashlib.sha256((model / "chat_template.jinja").read_bytes()).hexdigest()
    assert manifest["digests"]["template"] == digest
    assert "note: `chat_template llama3` names no file and no template of the model" in capsys.readouterr().err


def test_a_model_folder_that_is_not_there_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        train(shards, tmp_path / "nothing", tmp_path / "out")


def test_fewer_processes_than_asked_for_are_refused() -> None:
    from dlgc.train import checks

    checks.processes(1, {})
    checks.processes(2, {"WORLD_SIZE": "2"})
    with pytest.raises(dlgc.OptionsError, match="2 processes were asked for, but 1 trains\nhint: `torchrun"):
        checks.processes(1, {"WORLD_SIZE": "2"})
    with pytest.raises(dlgc.OptionsError, match="several processes"):  # accelerate launch --cpu --num_processes 2
        checks.processes(1, {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"})


def test_rows_that_a_trainer_changes_are_noticed(job: Job) -> None:
    from dlgc.train import checks

    row = job.shards.rows[0]
    good = job.trainer.data_collator([row])
    checks.batch(job.trainer, row, "sft")
    for changed in ({"input_ids": good["input_ids"][:, :-1]}, {"labels": good["labels"].int()}):
        trainer = SimpleNamespace(data_collator=lambda _, changed=changed: {**good, **changed})
        with pytest.raises(dlgc.ShardError, match="as in the shard"):
            checks.batch(trainer, row, "sft")


def test_a_template_for_tools_belongs_to_the_model(model: Path, shards: Path, tmp_path: Path) -> None:
    with_tools = shutil.copytree(model, tmp_path / "with_tools")
    file = with_tools / "additional_chat_templates" / "tool_use.jinja"
    file.parent.mkdir()
    file.write_text((model / "chat_template.jinja").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    dlgc.compile(GUIDE, tmp_path / "shards", tokenizer=with_tools)
    ours = dlgc.manifest(tmp_path / "shards")["digests"]["template_tool_use"][:12]
    refused(tmp_path / "shards", model, tmp_path / "out", "chat template `tool_use`", "is none", ours)
    refused(shards, with_tools, tmp_path / "out", "chat template `tool_use`", "none: a server", ours)
    train(tmp_path / "shards", with_tools, tmp_path / "out", full=True, max_steps=1, use_cpu=True)
    kept = tmp_path / "out" / "additional_chat_templates" / "tool_use.jinja"
    assert kept.read_bytes() == file.read_bytes()


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(
    real_tokenizer: Callable[[str], Path], qwen3: Path, shared: Path, tmp_path: Path
) -> None:
    # AutoTokenizer builds a tokenizer of its own for Llama 2, with other ids than its tokenizer.json gives.
    from transformers import AutoTokenizer

    from dlgc.train import Options, checks
    from dlgc.train.data import Shards

    template = shared / "templates" / "trl" / "llava_next.jinja"
    found = {}
    for name, folder in (("llama2", real_tokenizer("llama2")), ("qwen3", qwen3)):
        dlgc.compile(GUIDE, tmp_path / name, tokenizer=folder, chat_template=template, max_rejects=1.0)
        found[name] = Shards.open(tmp_path / name)
    options = Options.of({"data_path": tmp_path / "llama2", "model": "x", "output_dir": tmp_path / "out"})
    checks.served(AutoTokenizer.from_pretrained(qwen3), found["qwen3"], options)
    theirs = AutoTokenizer.from_pretrained(found["llama2"].tokenizer)
    with pytest.raises(dlgc.ShardError, match="otherwise than its `tokenizer"):
        checks.served(theirs, found["llama2"], options)
    # The hint helps.
    folder = shutil.copytree(found["llama2"].tokenizer, tmp_path / "as it is")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "TokenizersBackend"}))
    dlgc.compile(GUIDE, tmp_path / "again", tokenizer=folder, chat_template=template, max_rejects=1.0)
    again = Shards.open(tmp_path / "again")
    checks.served(AutoTokenizer.from_pretrained(again.tokenizer), again, options)
