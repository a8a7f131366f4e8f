"""Shows how the cost of a dialogue grows with its number of messages: the time of one rendering with all its proofs.

A fitted exponent of 1 is linear. Templates whose prompts do not nest need rows of their own, whose tokens alone grow
with the square; they are not shown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import dlgc
from dlgc import _dlgc

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT.parent / "shared" / "templates"
CACHE = Path(os.environ.get("DLGC_CACHE", Path.home() / ".cache" / "dlgc"))
CASES = {
    "built-in": ("builtin", None),
    "Qwen2.5": ("qwen3", "llama.cpp/Qwen-Qwen2.5-7B-Instruct.jinja"),
    "Qwen3, TRL's training template": ("qwen3", "trl/qwen3_training.jinja"),
    "Llama 3.1": ("llama3_1", "trl/llama3_1.jinja"),
    "Gemma 3": ("gemma3", "trl/gemma3.jinja"),
}
"""Tokenizer and template by name."""


def dialogue(messages: int) -> bytes:
    """A dialogue of so many messages, no two alike."""
    turns = [
        {"role": role, "content": text}
        for index in range(messages // 2)
        for role, text in (
            ("user", f"Question {index}: what is {index * 7919} in words, and why does task {index % 17} need it?"),
            ("assistant", f"It is number {index * 31}. Because of item {index} the answer is {index * index}."),
        )
    ]
    return json.dumps({"messages": turns}).encode()


def seconds(renderer: _dlgc.Renderer, record: bytes, times: int) -> float:
    """The shortest of several times, as processor time of this process."""
    best = math.inf
    for _ in range(times):
        start = time.process_time()
        found = renderer.render(record)
        best = min(best, time.process_time() - start)
    rows = json.loads(found)["rows"]
    if len(rows) != 1:
        sys.exit(f"the prompts do not nest: {len(rows)} rows")
    return best


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, nargs="+", default=[100, 200, 400, 1000])
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    for name, (tokenizer, template) in CASES.items():
        folder = tokenizer if tokenizer == "builtin" else str(CACHE / "tokenizers" / tokenizer)
        path = TEMPLATES / template if template else None
        if (path and not path.exists()) or (tokenizer != "builtin" and not Path(folder).exists()):
            print(f"{name}: skipped, its template or tokenizer is not here")
            continue
        options: dict[str, object] = {"tokenizer": folder, "max_length": "none", "date": "2026-01-01"}
        if path:
            options["chat_template"] = str(path)
        renderer = _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())
        found = [(count, seconds(renderer, dialogue(count), arguments.times)) for count in arguments.messages]
        logs = [(math.log(count), math.log(taken)) for count, taken in found]
        mean = [sum(values) / len(logs) for values in zip(*logs, strict=True)]
        slope = sum((x - mean[0]) * (y - mean[1]) for x, y in logs) / sum((x - mean[0]) ** 2 for x, _ in logs)
        shown = ", ".join(f"{count} messages {1000 * taken:.0f} ms" for count, taken in found)
        print(f"{name}: exponent {slope:.2f} ({shown})")


if __name__ == "__main__":
    main()
