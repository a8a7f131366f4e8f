"""What is overridden in TRL is private to it: this fails when it moves, before anybody trains something else.

Each hook is asked for by name and arguments, and a trainer is made to see that TRL still calls it.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest
from training import MARKS, pair, prepared, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture(scope="module")
def pairs(model: Path) -> Path:
    said = ({"role": "assistant", "content": text} for text in ("Yes, of course.", "No."))
    row = pair(model, [{"role": "user", "content": "Is it?"}], *([one] for one in said))
    return write_pairs(model.parent / "pairs", model, [row, row])


def arguments(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_what_packs_weights_in_four_bits_has_its_name() -> None:
    from bitsandbytes.nn import Linear4bit

    from dlgc.train.run import PACKS

    assert hasattr(Linear4bit(8, 8), PACKS)


def test_the_hooks_have_their_names_and_arguments() -> None:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import trl
    from trl.experimental.orpo import ORPOTrainer

    for trainer in (trl.DPOTrainer, trl.KTOTrainer):
        wanted = ["self", "dataset", "processing_class", "args", "dataset_name"]
        assert arguments(trainer._prepare_dataset) == wanted  # noqa: SLF001  # that is what is tested
    assert arguments(trl.DPOTrainer._precompute_ref_logps) == ["self", "dataset", "name", "batch_size"]  # noqa: SLF001
    assert arguments(trl.DPOTrainer._compute_loss) == ["self", "model", "inputs", "return_outputs"]  # noqa: SLF001
    assert arguments(ORPOTrainer.tokenize_row) == ["self", "feature", "model"]
    assert arguments(ORPOTrainer.concatenated_forward) == ["self", "model", "batch"]


@pytest.mark.parametrize(
    ("method", "name", "hooks"),
    [
        ("dpo", "PairTrainer", ["_prepare_dataset", "_compute_loss"]),
        ("simpo", "SimpoTrainer", ["_prepare_dataset", "_precompute_ref_logps", "_compute_loss"]),
    ],
)
def test_trl_calls_the_hooks(  # noqa: PLR0913, PLR0917  # three of them are fixtures
    method: str,
    name: str,
    hooks: list[str],
    model: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dlgc.train import trainers

    kind, called = getattr(trainers, name), set()

    def counted(hook: str) -> Callable[..., Any]:
        own = getattr(kind, hook)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # TRL's
            called.add(hook)
            return own(self, *args, **kwargs)

        return call

    for hook in hooks:
        monkeypatch.setattr(kind, hook, counted(hook))
    trainer = prepared(pairs, model, tmp_path / "out", method=method, full=True, max_steps=1).trainer
    trainer.train()
    assert called == set(hooks)
    if method == "simpo":
        assert trainer.ref_model is None  # none is loaded only to be thrown away


def test_trls_own_trainer_does_not_take_these_rows(model: Path, pairs: Path, tmp_path: Path) -> None:
    """The day it does, what is overridden for it may go."""
    from trl import DPOTrainer

    ours = prepared(pairs, model, tmp_path / "out", method="dpo", full=True).trainer
    with pytest.raises(KeyError, match="chosen"):
        DPOTrainer(
            model=str(model), args=ours.args, train_dataset=ours.train_dataset, processing_class=ours.processing_class
        )


def test_trls_own_collator_trains_all_that_follows_the_prompt() -> None:
    """The reason for ours; and what its batches hold, which ours must."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from dlgc.train.trainers import PairCollator

    row = {
        "prompt_ids": [1, 2],
        "chosen_ids": [3, 4, 5],
        "rejected_ids": [6],
        "chosen_labels": [3, -100, 5],
        "rejected_labels": [6],
    }
    theirs, ours = (kind(pad_token_id=0)([row]) for kind in (DataCollatorForPreference, PairCollator))
    assert theirs["completion_mask"].tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    assert ours["completion_mask"].tolist() == [[0, 0, 1, 0, 1], [0, 0, 1, 0, 0]]
    assert set(theirs) == set(ours)
    assert theirs["input_ids"].tolist() == ours["input_ids"].tolist()
