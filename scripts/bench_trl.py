"""What TRL and transformers make of dialogues, timed from the inside: run by `scripts/bench.py`, a process a figure.

`prepare` is TRL's own preparation (template, ids, mask, truncation, packing), from the JSON lines to the prepared
dataset: `load_dataset` and `SFTTrainer._prepare_dataset`, nothing else. `loop` is `apply_chat_template` for each
dialogue with ids and the assistant's mask, and nothing of the rest. Prints seconds and counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc


def prepare(arguments: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401  # transformers has no types
    """Has TRL prepare the dialogues; keeps the rows in `--keep`, if that is asked for."""
    import datasets
    import transformers
    import trl

    took = [0.0]

    class Trainer(trl.SFTTrainer):  # type: ignore[misc]  # TRL's types are not read
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            start = time.monotonic()
            prepared = super()._prepare_dataset(*args, **kwargs)
            took[0] += time.monotonic() - start
            return prepared

    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
    )
    model = transformers.Qwen3ForCausalLM(config)
    settings = trl.SFTConfig(
        output_dir=arguments.work,
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_length=arguments.max_length,
        packing=True,
        packing_strategy="bfd",
        assistant_only_loss=True,
        dataset_num_proc=arguments.processes,
    )
    start = time.monotonic()
    # Tools are JSON text, and null where a dialogue has none.
    rows = datasets.load_dataset("json", data_files=arguments.input, split="train", cache_dir=arguments.work)
    took[0] += time.monotonic() - start
    prepared = Trainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer).train_dataset
    if arguments.keep:
        prepared.save_to_disk(arguments.keep)
    labels = pc.list_flatten(prepared.data.column("labels"))
    counts = {"rows": len(prepared), "tokens": len(labels), "trained": pc.sum(pc.not_equal(labels, -100)).as_py()}
    return {"startup": start, "seconds": took[0], **counts}


def loop(arguments: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401  # transformers has no types
    """Applies the template to each dialogue."""
    tokens = trained = 0
    start = time.monotonic()
    with Path(arguments.input).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            tools = json.loads(record["tools"]) if "tools" in record else None
            found = tokenizer.apply_chat_template(
                record["messages"], tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            tokens += len(found["input_ids"])
            trained += sum(found["assistant_masks"])
    return {"startup": start, "seconds": time.monotonic() - start, "tokens": tokens, "trained": trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=("prepare", "loop"))
    parser.add_argument("input", help="dialogues, one a line")
    parser.add_argument("--tokenizer", required=True, help="a folder")
    parser.add_argument("--template", required=True, help="a file")
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", required=True, help="a folder for what `datasets` writes")
    parser.add_argument("--keep", help="a folder for the prepared rows")
    arguments = parser.parse_args()
    import datasets
    import transformers

    datasets.disable_progress_bars()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.tokenizer)
    tokenizer.chat_template = Path(arguments.template).read_text(encoding="utf-8")
    print(json.dumps({"prepare": prepare, "loop": loop}[arguments.how](arguments, tokenizer)))


if __name__ == "__main__":
    main()
