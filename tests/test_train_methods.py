"""The methods: each learns what is true and nothing of what is not, from exactly the rows of the shards.

What is said of TRL here is asked of TRL: its own trainers score what ours trained, or give the same loss.
"""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from training import MARKS, UNTRAINED, chat, pair, prepared, train, write_lines, write_pairs, write_rows

import dlgc
from dlgc.train.methods import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

    from dlgc.train.run import Job

pytestmark = MARKS

SAID = {
    "tea": ("Boil fresh water, wait a moment, then steep green leaves three minutes", "No idea at all"),
    "bread": ("Mix flour with salt and yeast, rest it overnight, fold twice, bake hot", "Ask somebody else"),
    "rust": ("Each value has one owner; others borrow, many to read or one to write", "It is just brown"),
    "chess": ("Control squares near the centre early, castle soon, connect both rooks", "Simply win quickly"),
    "rain": ("Warm air rises, cools down, and drops what it cannot carry any longer", "Look outside yourself"),
}
KINDS: dict[str, dict[str, object]] = {
    "full": {"full": True},
    "lora": {"lora_dropout": 0.0},
    "qlora": {"load_in_4bit": True, "lora_dropout": 0.0},
}
FAST: dict[str, object] = {
    "per_device_train_batch_size": 10,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant",
}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def pairs(model: Path) -> list[Row]:
    """Each question twice, with a better and a worse answer."""
    user = {topic: [{"role": "user", "content": f"What of {topic}?"}] for topic in SAID}
    said = {topic: [[{"role": "assistant", "content": text}] for text in answers] for topic, answers in SAID.items()}
    return [pair(model, user[topic], *said[topic]) for topic in SAID for _ in range(2)]


@pytest.fixture(scope="module")
def preferences(model: Path, pairs: list[Row]) -> Path:
    return write_pairs(model.parent / "pairs", model, pairs)


@pytest.fixture(scope="module")
def sequences(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = write_lines(folder / "d.jsonl", [chat(f"What of {topic}?", good) for topic, (good, _) in SAID.items()])
    dlgc.compile(lines, folder / "shards", tokenizer=model)
    return folder / "shards"


def lists(shards: Path, *columns: str) -> list[Row]:
    return dlgc.scan(shards).select(columns).collect().to_dicts()


def swapped(row: Row) -> Row:
    """A pair with its answers the wrong way round."""
    sides = {"chosen": "rejected", "rejected": "chosen"}
    return {
        f"{sides[name.split('_')[0]]}_{name.split('_')[1]}" if "prompt" not in name else name: row[name] for name in row
    }


def accuracy(model: Any, rows: list[Row]) -> float:  # noqa: ANN401  # theirs
    """The share of trained tokens that a model puts first."""
    import torch

    right = [
        prediction == label
        for row in rows
        for prediction, label in zip(
            model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].argmax(-1).tolist(),
            row["labels"][1:],
            strict=True,
        )
        if label != UNTRAINED
    ]
    return sum(right) / len(right)


def margin(model: Any, rows: list[Row], *, mean: bool) -> float:  # noqa: ANN401  # theirs
    """By how much the better answers are likelier than the worse ones: their sum of log-probabilities, or the mean."""
    import torch

    def likelihood(row: Row, side: str) -> float:
        ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]])
        found = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        wanted = [UNTRAINED] * (len(row["prompt_ids"]) - 1) + row[f"{side}_labels"]
        each = [float(found[place, label]) for place, label in enumerate(wanted) if label != UNTRAINED]
        return sum(each) / (len(each) if mean else 1)

    with torch.no_grad():
        return sum(likelihood(row, "chosen") - likelihood(row, "rejected") for row in rows) / len(rows)


def trained(job: Job) -> Any:  # noqa: ANN401  # theirs
    job.trainer.train()
    return job.trainer.model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_sft_learns_what_is_trained_and_not_what_is_shuffled(
    kind: str, model: Path, sequences: Path, tmp_path: Path
) -> None:
    true = lists(sequences, "input_ids", "labels")
    dlgc.compile(sequences.parent / "d.jsonl", tmp_path / "wrong", tokenizer=model)
    drawn = [label for row in true for label in row["labels"] if label != UNTRAINED]
    deal = iter(sorted(drawn, key=lambda label: label * 7919 % 6007))  # an order that has nothing to do with the texts
    shuffled = [
        {**row, "labels": [label if label == UNTRAINED else next(deal) for label in row["labels"]]} for row in true
    ]
    write_rows(tmp_path / "wrong", shuffled)

    scores = []
    for name, shards in (("true", sequences), ("wrong", tmp_path / "wrong")):
        job = prepared(
            shards,
            model,
            tmp_path / f"{name}-out",
            **FAST,
            max_steps=30 if kind == "full" else 20,
            learning_rate=1e-2,
            **KINDS[kind],
        )
        scores.append(accuracy(trained(job), true))
    print(f"sft {kind}: {scores}")
    assert scores[0] > 0.5
    assert scores[1] < 0.2


@pytest.mark.parametrize(("method", "kind"), list(itertools.product(("dpo", "simpo"), KINDS)))
def test_preferences_are_learnt_and_not_those_that_contradict_each_other(
    method: str, kind: str, preferences: Path, pairs: list[Row], tmp_path: Path
) -> None:
    model = preferences.parent / "tiny"
    both_ways = [row if number % 2 else swapped(row) for number, row in enumerate(pairs)]
    wrong = write_pairs(tmp_path / "wrong", model, both_ways)
    options = {**FAST, "max_steps": 8, "learning_rate": 5e-3, **KINDS[kind]}
    if method == "simpo":
        options |= {"beta": 2.0, "simpo_gamma": 1.0}

    grown = []
    for name, shards in (("true", preferences), ("wrong", wrong)):
        job = prepared(shards, model, tmp_path / f"{name}-out", method=method, **options)
        before = margin(job.trainer.model.eval(), pairs, mean=method == "simpo")
        grown.append(margin(trained(job), pairs, mean=method == "simpo") - before)
    print(f"{method} {kind}: {grown}")
    assert grown[0] > (1.0 if method == "simpo" else 5.0)
    assert abs(grown[1]) < grown[0] / 10


@pytest.fixture(scope="module")
def with_tools(model: Path) -> list[Row]:
    """Pairs whose better answer has a tool's result in it, and a further question of the user."""
    asked = [{"role": "user", "content": "What is the fare to Chengdu?"}]
    call = {"role": "assistant", "tool_call": {"name": "get_fare", "arguments": {"to": "Chengdu"}}}
    better = [
        call,
        {"role": "tool", "name": "get_fare", "content": "128 yuan, 40 seats"},
        {"role": "assistant", "content": "It is 128 yuan."},
        {"role": "user", "content": "Thank you, and the seats?"},
        {"role": "assistant", "content": "Forty are left."},
    ]
    worse = [{"role": "assistant", "content": "I would guess 99."}]
    return [pair(model, asked, better, worse), pair(model, asked, better[:3], [call, better[1], *worse])]


@pytest.fixture(scope="module")
def tool_pairs(model: Path, with_tools: list[Row]) -> Path:
    return write_pairs(model.parent / "tool-pairs", model, with_tools)


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_of_an_answer_exactly_what_the_shards_say_is_trained(
    method: str, tool_pairs: Path, model: Path, tmp_path: Path
) -> None:
    job = prepared(tool_pairs, model, tmp_path / "out", method=method, full=True, per_device_train_batch_size=2)
    rows = lists(tool_pairs, *COLUMNS["preference"])
    (batch,) = job.trainer.get_train_dataloader()

    names = ("input_ids", "attention_mask", "completion_mask")
    seen = list(zip(*(batch[name].tolist() for name in names), strict=True))
    for half, side in ((seen[:2], "chosen"), (seen[2:], "rejected")):
        for ids, mask, trained_here in half:
            length = sum(mask)
            (row,) = (row for row in rows if row["prompt_ids"] + row[f"{side}_ids"] == ids[:length])
            wanted = [0] * len(row["prompt_ids"]) + [int(label != UNTRAINED) for label in row[f"{side}_labels"]]
            assert trained_here == wanted + [0] * (len(ids) - length)
            assert mask == [1] * length + [0] * (len(ids) - length)
    tokenizer = job.trainer.processing_class
    chosen = lists(tool_pairs, "chosen_ids", "chosen_labels")[0]
    not_trained = [
        i for i, label in zip(chosen["chosen_ids"], chosen["chosen_labels"], strict=True) if label == UNTRAINED
    ]
    said = tokenizer.decode(not_trained)
    assert "128 yuan, 40 seats" in said
    assert "and the seats?" in said


def test_simpo_is_that_of_trls_cpo_trainer(
    tool_pairs: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, gradients and rewards, on answers with holes in them."""
    import torch

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class Ready(CPOTrainer):  # type: ignore[misc]  # TRL ships no types
        def tokenize_row(self, feature: Row, model: object = None) -> Row:  # noqa: ARG002  # TRL's
            prompt = feature["prompt_ids"]
            row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
            for side in ("chosen", "rejected"):
                ids = prompt + feature[f"{side}_ids"]
                labels = [UNTRAINED] * len(prompt) + feature[f"{side}_labels"]
                row |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids), f"{side}_labels": labels}
            return row

    options = {"beta": 2.0, "simpo_gamma": 1.2}
    ours = prepared(tool_pairs, model, tmp_path / "ours", method="simpo", full=True, **options).trainer
    config = CPOConfig(
        output_dir=str(tmp_path / "theirs"),
        loss_type="simpo",
        cpo_alpha=0.0,
        max_length=4096,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        remove_unused_columns=False,
        **options,
    )
    rows = ours.train_dataset
    network = ours.model.__class__.from_pretrained(model)
    theirs = Ready(model=network, args=config, train_dataset=rows, processing_class=ours.processing_class)

    losses, gradients = [], []
    for trainer in (ours, theirs):
        trainer.model.eval()
        batch = trainer.data_collator([trainer.train_dataset[place] for place in range(2)])
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()]))
    print(f"SimPO ours {losses[0]:.8f}, CPOTrainer {losses[1]:.8f}")
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        found = ours._metrics["eval"][name][-1]  # noqa: SLF001  # what it will log
        wanted = next(values[f"{name}"][-1] for values in theirs._stored_metrics.values() if values[name])  # noqa: SLF001
        assert found == pytest.approx(wanted, abs=1e-5), name


@pytest.mark.skipif(
    "rows" not in {field.name for field in fields(dlgc.CompileOptions)}, reason="this core compiles no preferences"
)
def test_preferences_that_were_compiled_are_trained_by_every_method_for_them(model: Path, tmp_path: Path) -> None:
    """The rows that the helpers of these tests make by hand are those of the compiler."""
    asked = [{"role": "user", "content": "What is the fare to Chengdu?"}]
    call = {"role": "assistant", "tool_call": {"name": "get_fare", "arguments": {"to": "Chengdu"}}}
    better = [
        call,
        {"role": "tool", "name": "get_fare", "content": "128 yuan"},
        {"role": "assistant", "content": "It is 128 yuan."},
    ]
    worse = [{"role": "assistant", "content": "I would guess 99."}]
    records = [{"messages": asked, "chosen": better, "rejected": worse, "split": s} for s in ("train", "validation")]
    lines = write_lines(tmp_path / "d.jsonl", records)
    by_hand = pair(model, asked, better, worse)
    for rows, methods in (("preference", ("dpo", "simpo", "orpo")), ("kto", ("kto",))):
        shards = tmp_path / rows
        dlgc.compile(lines, shards, tokenizer=model, rows=rows)
        if rows == "preference":
            assert lists(shards, *COLUMNS[rows]) == [by_hand]
        for method in methods:
            options = {"max_steps": 2, "per_device_train_batch_size": 2}
            done = train(method, shards, model, tmp_path / f"{method}-out", full=True, **options)
            assert done.evaluation is not None
            assert set(done.evaluation["by_type"]) == {"tool"}
            assert set(done.evaluation["by_message"]) == {"1"}


def test_trls_other_losses_are_taken_as_they_are(tool_pairs: Path, model: Path, tmp_path: Path) -> None:
    options = {"loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.2}
    trainer = prepared(tool_pairs, model, tmp_path / "out", method="dpo", full=True, **options).trainer
    assert (trainer.loss_types, trainer.loss_weights, trainer.beta) == (["ipo", "sft"], [1.0, 0.5], 0.2)
    assert trainer.args.max_length is None


def test_kto_compares_with_the_answer_before_and_trains_what_the_shards_say(
    with_tools: list[Row], model: Path, tmp_path: Path
) -> None:
    verdicts = [
        {
            "prompt_ids": row["prompt_ids"],
            "completion_ids": row[f"{side}_ids"],
            "completion_labels": row[f"{side}_labels"],
            "label": side == "chosen",
        }
        for row in with_tools
        for side in ("chosen", "rejected")
    ]
    shards = write_pairs(tmp_path / "verdicts", model, verdicts)
    options = {"full": True, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    job = prepared(shards, model, tmp_path / "batch", **options)
    assert job.options.method == "kto"
    rows = [job.trainer.train_dataset[place] for place in range(4)]
    batch = job.trainer.data_collator(rows)
    for number, row in enumerate(rows):
        for prefix, answer in (("", row), ("KL_", rows[number - 1])):
            ids = row["prompt_ids"] + answer["completion_ids"]
            labels = [UNTRAINED] * len(row["prompt_ids"]) + answer["completion_labels"]
            assert batch[f"{prefix}input_ids"][number, : len(ids)].tolist() == ids
            mask = batch[f"{prefix}completion_mask"][number]
            assert mask[: len(ids)].tolist() == [int(label != UNTRAINED) for label in labels]
            assert not mask[len(ids) :].any()
    done = train("kto", shards, model, tmp_path / "out", max_steps=4, **options)
    assert done.last_loss < done.first_loss


def test_orpo_learns_only_what_is_trained(preferences: Path, model: Path, tmp_path: Path) -> None:
    import torch

    before = {path.name for path in (preferences / "train").iterdir()}
    job = prepared(preferences, model, tmp_path / "batch", method="orpo", full=True)
    batch = job.trainer.data_collator([job.trainer.train_dataset[place] for place in range(3)])
    found = job.trainer.concatenated_forward(job.trainer.model.eval(), batch)
    logits = job.trainer.model(
        input_ids=batch["chosen_input_ids"], attention_mask=batch["chosen_attention_mask"]
    ).logits
    wanted = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["chosen_labels"][:, 1:].flatten())
    assert float(found[4].detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
    done = train("orpo", preferences, model, tmp_path / "out", max_steps=4)
    assert done.last_loss < done.first_loss
    assert {path.name for path in (preferences / "train").iterdir()} == before  # nothing is cached beside the shards


def test_what_a_method_does_unasked_is_said(
    preferences: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("simpo", preferences, model, tmp_path / "out", max_steps=1, lora_r=4, learning_rate=1e-6)
    said = capsys.readouterr().err
    assert "method         simple preference optimisation (SimPO)" in said
    assert "warning: 1 steps are few" in said
    assert "hint: for LoRA a learning rate of 5e-06 to 5e-05 is usual with simpo" in said
    assert "note: simpo switches dropout off, that of LoRA included" in said
    assert "hint: the authors of SimPO use a `--beta` of 2 to 10" in said
    assert "-- the better answer:\n" in said
    assert "What of tea?<|im_end|>\n<|im_start|>assistant\n[[Boil fresh water" in said
    assert "-- the worse answer:\n" in said
