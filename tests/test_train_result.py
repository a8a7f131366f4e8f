"""What a training leaves behind, and what it says of rows that were held out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from training import MARKS, UNTRAINED, chat, pair, train, write_lines, write_pairs

import dlgc
from dlgc.train.plot import curves, sparkline, svg

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS

FEW: dict[str, object] = {"max_steps": 2, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def shards(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four dialogues to train on, three held out: of two types, with up to three turns."""
    folder = tmp_path_factory.mktemp("data")
    held_out = [
        chat("Hello?", "Hello.", split="validation", type="chat"),
        chat("Ten?", "Ten.", "More?", "Eleven, twelve.", "And?", "Done.", split="validation", type="chat"),
        chat("A table for two.", "Which day?", "Monday.", "Booked.", split="validation", type="task"),
    ]
    trained = [chat(f"Count {n}.", f"{n}, {n + 1}.") for n in range(4)]
    dlgc.compile(write_lines(folder / "d.jsonl", [*trained, *held_out]), folder / "shards", tokenizer=model)
    return folder / "shards"


def by_hand(model: Any, shards: Path) -> dict[tuple[str, int], tuple[float, int]]:  # noqa: ANN401  # theirs
    """Sum of the losses and number of the tokens of each type and turn, target by target."""
    import torch

    found: dict[tuple[str, int], tuple[float, int]] = {}
    types = {row["id"]: row["type"] for row in dlgc.scan_dialogues(shards).collect().to_dicts()}
    for row in dlgc.scan(shards, "validation").collect().to_dicts():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].float().log_softmax(-1)
        turn, before = 0, UNTRAINED
        for place, label in enumerate(row["labels"]):
            if label != UNTRAINED:
                turn += before == UNTRAINED
                key = (types[row["dialogue_id"][0]], turn)
                total, count = found.get(key, (0.0, 0))
                found[key] = (total - float(logits[place - 1, label]), count + 1)
            before = label
    return found


def test_held_out_rows_are_evaluated_by_type_and_by_turn(
    model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    packed = tmp_path / "packed"
    dlgc.repack(shards, packed, packing="bfd-global")
    for name, folder in (("plain", shards), ("packed", packed)):
        output = tmp_path / f"{name}-out"
        done = train("sft", folder, model, output, full=True, num_train_epochs=2, per_device_train_batch_size=2)
        wanted = by_hand(AutoModelForCausalLM.from_pretrained(output), shards)
        assert done.evaluation is not None
        for by, index in (("by_type", 0), ("by_turn", 1)):
            keys = {str(key[index]) for key in wanted}
            assert set(done.evaluation[by]) == keys
            for key in keys:
                parts = [values for group, values in wanted.items() if str(group[index]) == key]
                tokens = sum(count for _, count in parts)
                assert done.evaluation[by][key]["tokens"] == tokens
                assert done.evaluation[by][key]["loss"] == pytest.approx(sum(x for x, _ in parts) / tokens, abs=1e-4)
    said = capsys.readouterr().err
    assert "held out       3 rows of `validation`, evaluated after each epoch" in said
    assert re.search(r"held-out rows of `validation`:\n  type    chat +loss [\d.]+  tokens \d+\n", said)
    assert re.search(r"\n  turn    3 +loss", said)
    card = (tmp_path / "plain-out" / "README.md").read_text(encoding="utf-8")
    assert "## On held-out rows" in card
    assert "| turn 3 | loss" in card
    picture = (tmp_path / "plain-out" / "loss.svg").read_text(encoding="utf-8")
    assert "eval_loss" in picture


def test_held_out_pairs_are_evaluated_by_type_and_by_message(model: Path, tmp_path: Path) -> None:
    def row(topic: str, place: int) -> dict[str, Any]:
        said = [[{"role": "assistant", "content": text}] for text in (f"All about {topic}.", "No.")]
        found = pair(model, [{"role": "user", "content": f"What of {topic}?"}], *said)
        # The first dialogue of the folder is trained on, the second is held out: both have a type.
        return {**found, "dialogue_id": f"{place}", "file": "-", "line": place, "chosen_messages": [0]}

    shards = write_pairs(tmp_path / "pairs", model, [row("tea", 1), row("salt", 1), row("rain", 2)], held_out=1)
    for method in ("dpo", "simpo"):
        done = train(method, shards, model, tmp_path / method, full=True, max_steps=3, save_strategy="no")
        assert done.evaluation is not None
        (values,) = done.evaluation["by_message"].values()
        assert values["rows"] == 1
        assert {"loss", "chosen", "rejected", "margins", "accuracies"} <= set(values)
        assert values["margins"] == pytest.approx(values["chosen"] - values["rejected"], abs=1e-5)


def test_a_training_that_gets_worse_stops_early_and_keeps_the_best(model: Path, shards: Path, tmp_path: Path) -> None:
    options: dict[str, object] = {"full": True, "eval_steps": 1, "max_steps": 12, "learning_rate": 3.0, "optim": "sgd"}
    done = train("sft", shards, model, tmp_path / "out", early_stopping_patience=2, **options)
    assert done.steps < 12
    state = max((tmp_path / "out").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    found = json.loads(state.read_text(encoding="utf-8"))
    losses = {entry["step"]: entry["eval_loss"] for entry in found["log_history"] if "eval_loss" in entry}
    assert found["best_global_step"] == min(losses, key=lambda step: losses[step])
    best = tmp_path / "out" / f"checkpoint-{found['best_global_step']}" / "model.safetensors"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == best.read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eval_split": "test"}, "`eval_split test` needs held-out rows"),
        ({"eval_strategy": "epoch", "eval_split": "test"}, "`eval_strategy epoch` needs held-out rows"),
        ({"early_stopping_patience": 1, "eval_strategy": "no"}, "needs evaluations on the way"),
    ],
)
def test_an_evaluation_without_rows_is_refused(
    options: dict[str, object], words: str, model: Path, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(dlgc.OptionsError, match=words):
        train("sft", shards, model, tmp_path / "out", **options)


@pytest.mark.parametrize("kind", [{}, {"load_in_4bit": True}])
def test_adapter_and_base_are_saved_as_one_on_request(
    kind: dict[str, object], model: Path, shards: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    output = tmp_path / "out"
    options: dict[str, object] = {"merge": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
    train("sft", shards, model, output, eval_split="none", **FEW, **options, **kind)

    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = PeftModel.from_pretrained(base, str(output))
    merged = AutoModelForCausalLM.from_pretrained(output / "merged")
    ids = torch.tensor([dlgc.scan(shards).head(1).collect()["input_ids"][0].to_list()])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(model)(ids).logits
        assert float((adapted(ids).logits - merged(ids).logits).abs().max()) < 1e-3
        assert float((plain - merged(ids).logits).abs().max()) > 1e-3
    for folder in (output, output / "merged"):
        found = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        stop = dlgc.manifest(shards)["stop_ids"][0]
        sampling = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1, "do_sample": True}
        assert found.items() >= {"eos_token_id": stop, **sampling}.items()
        assert (folder / "chat_template.jinja").read_bytes() == (model / "chat_template.jinja").read_bytes()
        assert json.loads((folder / "dlgc.json").read_text(encoding="utf-8"))["method"] == "sft"
        for path in [*folder.glob("*.json"), folder / "README.md"]:
            assert str(model) not in path.read_text(encoding="utf-8"), path
    with pytest.raises(dlgc.OptionsError, match="`merge` and `full` contradict each other"):
        train("sft", shards, model, tmp_path / "full", full=True, merge=True)


def test_the_card_says_what_was_trained_on_what(model: Path, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    train("sft", shards, model, output, eval_split="none", lora_r=4, **FEW)
    card = (output / "README.md").read_text(encoding="utf-8")
    origin = json.loads((output / "dlgc.json").read_text(encoding="utf-8"))
    assert card.startswith(
        '---\nlibrary_name: "peft"\npipeline_tag: "text-generation"\ntags: ["dlgc", "trl", "sft"]\n---'
    )
    assert "An adapter (LoRA) for `tiny`, by supervised fine-tuning (SFT)." in card
    assert "| adapter | r 4, alpha 32 |" in card
    assert "compiled by dlgc from 7 records: 7 imported, 0 rejected" in card
    assert origin["data"]["manifest_sha256"] in card
    assert "base_model" not in card  # which is a name on the Hub
    assert not (output / "training_args.bin").exists()


def test_curves_are_drawn_from_what_was_logged() -> None:
    history = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "eval_loss": 3.5},
        {"step": 5, "loss": 2.0},
        {"step": 5, "other": 1.0},
    ]
    found = curves(history)
    assert found == {"loss": [(1.0, 4.0), (5.0, 2.0)], "eval_loss": [(2.0, 3.5)]}
    drawn = svg(found, "a <model> & more")
    root = ET.fromstring(drawn)  # noqa: S314  # our own
    lines = [element.get("d") for element in root.iter() if element.get("class") == "loss" and element.get("d")]
    assert "M48.0 48.0 L592.0 272.0" in lines
    assert "a <model> & more" in [element.text for element in root.iter()]
    assert svg({"loss": [(1.0, 2.0)]}, "one").count("circle") == 1


def test_a_sparkline_is_as_wide_as_asked_and_as_high_as_its_values() -> None:
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"
    assert sparkline([1.0, 1.0, 1.0]) == "▁▁▁"
    assert sparkline([0.0] * 50 + [1.0] * 50, width=4) == "▁▁██"
