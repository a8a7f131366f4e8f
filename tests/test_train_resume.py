"""A training that is killed goes on to the same weights, and two processes train what one does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from training import MARKS, chat, edit, train, write_lines

import dlgc

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS

LIMIT = 300
"""Seconds after which a command has hung."""
LONG: dict[str, object] = {
    "max_steps": 30,
    "save_strategy": "steps",
    "save_steps": 6,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "lora_dropout": 0.1,  # the state of chance is part of what must be the same
    "logging_steps": 1,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def shards(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dialogues of different lengths, so that batches have different numbers of trained tokens."""
    folder = tmp_path_factory.mktemp("data")
    said = [chat(f"Count to {n}.", " ".join(map(str, range(1, n + 1)))) for n in range(1, 13)]
    dlgc.compile(write_lines(folder / "d.jsonl", said), folder / "shards", tokenizer=model)
    return folder / "shards"


def command(shards: Path, model: Path, output: Path, **options: object) -> list[str]:
    flags = {"model": model, "output_dir": output, "gradient_checkpointing": False, "disable_tqdm": True, **options}
    return ["-m", "dlgc.train", str(shards), *(f"--{name}={value}" for name, value in flags.items())]


def history(output: Path) -> list[tuple[int, float]]:
    """The losses of every step, of the last checkpoint."""
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    return [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]


def test_a_killed_training_goes_on_to_the_same_weights(
    model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "killed"
    line = [sys.executable, *command(shards, model, output, **LONG)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + LIMIT
        while not (output / "checkpoint-6" / "dlgc-checkpoint.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (output / "dlgc.json").exists()
    assert not (output / "checkpoint-30").exists()
    # What is written when it dies has no record.
    whole = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    shutil.copytree(whole, output / "checkpoint-29")
    (output / "checkpoint-29" / "dlgc-checkpoint.json").unlink(missing_ok=True)

    resumed = train("sft", shards, model, output, resume_from_checkpoint=True, **LONG)
    assert "`" + str(output / "checkpoint-29") + "` is not whole" in capsys.readouterr().err
    unbroken = train("sft", shards, model, tmp_path / "unbroken", **LONG)

    assert (resumed.steps, resumed.last_loss) == (30, unbroken.last_loss)
    assert history(output) == history(tmp_path / "unbroken")
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in (output, tmp_path / "unbroken")]
    assert weights[0] == weights[1]


def test_only_the_training_that_was_cut_off_goes_on(model: Path, shards: Path, tmp_path: Path) -> None:
    options: dict[str, object] = {**LONG, "max_steps": 2, "save_steps": 1}
    train("sft", shards, model, tmp_path / "out", **options)
    (tmp_path / "out" / "dlgc.json").unlink()

    def refused(words: str, folder: Path = shards, **changed: object) -> None:
        with pytest.raises(dlgc.OptionsError, match=words):
            train("sft", folder, model, tmp_path / "out", resume_from_checkpoint=True, **{**options, **changed})

    refused("was trained with `per_device_train_batch_size` 1, now it is 2\nhint: go on", per_device_train_batch_size=2)
    refused("was trained with `seed` 42, now it is 7", seed=7)
    other = shutil.copytree(shards, tmp_path / "other")
    edit(other / "manifest.json", versions={"dlgc": "0", "tokenizers": "0", "minijinja": "0", "semantics": "0"})
    refused("was trained with `dataset`", folder=other)
    record = tmp_path / "out" / "checkpoint-2" / "dlgc-checkpoint.json"
    edit(record, processes=2)
    (record.parent / "rng_state.pth").rename(record.parent / "rng_state_0.pth")
    shutil.copy(record.parent / "rng_state_0.pth", record.parent / "rng_state_1.pth")
    refused("was trained with `processes` 2, now it is 1")
    for checkpoint in (tmp_path / "out").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    refused("no whole checkpoint to go on from\nhint: leave out `--resume_from_checkpoint`")


def weights_of(folder: Path) -> Any:  # noqa: ANN401  # imported late
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_two_processes_train_what_one_does(model: Path, shards: Path, tmp_path: Path) -> None:
    """With the same rows in a step: the loss is a mean over the trained tokens of both."""
    options: dict[str, object] = {
        "full": True,
        "max_steps": 4,
        "optim": "sgd",  # AdamW divides by gradients, and makes of a difference in the last place one of the first
        "learning_rate": 0.1,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 4,
        "gradient_accumulation_steps": 1,
    }
    train("sft", shards, model, tmp_path / "one", per_device_train_batch_size=2, **options)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    line = [*torchrun, *command(shards, model, tmp_path / "two", per_device_train_batch_size=1, **options)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=LIMIT)

    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert "steps          4, each of up to 2 rows" in done.stderr
    losses = [history(tmp_path / name) for name in ("one", "two")]
    assert [step for step, _ in losses[0]] == [1, 2, 3, 4]
    for (_, one), (_, two) in zip(*losses, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    one, two, start = weights_of(tmp_path / "one"), weights_of(tmp_path / "two"), weights_of(model)
    worst = max(float((one[name] - two[name]).abs().max()) for name in one)
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    print(f"weights differ by {worst:.1e} at most, and have moved by {moved:.1e}")
    assert worst < 1e-5 < moved / 100


def test_one_process_where_two_were_asked_for_is_an_error(shards: Path, model: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    line = [*launch, *command(shards, model, tmp_path / "out", full=True, max_steps=1)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert "processes were asked for, but 1 trains\nhint: `torchrun" in done.stderr
    assert not (tmp_path / "out" / "dlgc.json").exists()
