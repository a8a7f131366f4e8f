"""Times `dlgc compile` beside TRL's own preparation of the same dialogues, in one run, alternating.

Each figure is a whole process: from its start to its end, its peak memory as the system accounts it. Data is real and
unrepeated: the first `--megabytes` of SMILE (Chinese) from the material beside the checkout. Qwen3's tokenizer with
the template that TRL trains it with, on both sides; both keep whole dialogues, and the trained tokens are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CACHE = Path(os.environ.get("DLGC_CACHE", Path.home() / ".cache" / "dlgc"))

TRL = """
import json, sys, time
path, tokenizer, template, out = sys.argv[1:]
import datasets, transformers, trl
datasets.disable_progress_bars()
tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer)
tokenizer.chat_template = open(template).read()
config = transformers.Qwen3Config(vocab_size=151936, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1, head_dim=8)
model = transformers.Qwen3ForCausalLM(config)
start = time.monotonic()
rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=out).select_columns(["messages"])
arguments = trl.SFTConfig(output_dir=out, use_cpu=True, bf16=False, report_to="none", max_length=None, packing=False,
    assistant_only_loss=True)
prepared = trl.SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer).train_dataset
seconds = time.monotonic() - start
trained = sum(sum(label != -100 for label in row) for row in prepared["labels"])
tokens = sum(map(len, prepared["input_ids"]))
print(json.dumps({"seconds": seconds, "rows": len(prepared), "tokens": tokens, "trained": trained}))
"""


def data(megabytes: float, folder: Path) -> Path:
    """Writes the first whole dialogues of SMILE, as many as fit."""
    import pyarrow as pa

    source = SHARED / "data" / "smile" / "smile.jsonl.zst"
    if not source.is_file():
        sys.exit(f"skipped: the benchmark's data is not here ({source.relative_to(ROOT.parent)})")
    with pa.input_stream(str(source), compression="zstd") as stream:
        text = stream.read(int(megabytes * 1e6))
    path = folder / "smile.jsonl"
    path.write_bytes(text[: text.rindex(b"\n") + 1])
    return path


def timed(command: list[str]) -> tuple[float, float, str]:
    """Runs a command; returns seconds, peak memory in MB, and what it printed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return time.monotonic() - start, usage.ru_maxrss / 1024, printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=10, help="how much of the data (default: 10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, alternating (default: 3)")
    arguments = parser.parse_args()
    tokenizer = CACHE / "tokenizers" / "qwen3"
    template = SHARED / "templates" / "trl" / "qwen3_training.jinja"
    if not tokenizer.is_dir():
        sys.exit("skipped: Qwen3's tokenizer is not in the cache; `make test` fetches it")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = data(arguments.megabytes, folder)
        size = raw.stat().st_size / 1e6
        common = ["--tokenizer", str(tokenizer), "--chat-template", str(template), "--max-length", "none", "--json"]
        dlgc = [sys.executable, "-m", "dlgc", "compile", str(raw), "-o", str(folder / "out"), "--overwrite", *common]
        contenders = {
            "dlgc, exact, 1 thread": [*dlgc, "--threads", "1"],
            "dlgc, exact, 2 threads": [*dlgc, "--threads", "2"],
            "dlgc, hf-compat, 1 thread": [*dlgc, "--threads", "1", "--mask", "hf-compat"],
            "TRL, num_proc 1": [sys.executable, "-c", TRL, str(raw), str(tokenizer), str(template)],
        }
        results: dict[str, list[tuple[float, float, str]]] = {name: [] for name in contenders}
        for run in range(arguments.runs):
            for name, command in contenders.items():
                last = [str(folder / f"trl{run}")] if name.startswith("TRL") else []
                results[name].append(timed([*command, *last]))
        print(f"{size:.1f} MB of Chinese dialogues, {arguments.runs} runs each, alternating, whole processes")
        print(f"{'':<28}{'median s':>9}{'spread':>8}{'MB/s':>7}{'x TRL':>7}{'MB RSS':>8}{'tokens':>11}{'trained':>11}")
        base = statistics.median(seconds for seconds, _, _ in results["TRL, num_proc 1"])
        for name, runs in results.items():
            seconds = [run[0] for run in runs]
            median = statistics.median(seconds)
            report = json.loads(runs[0][2].strip().splitlines()[-1])
            tokens, trained = report["tokens"], report.get("trained_tokens", report.get("trained"))
            print(
                f"{name:<28}{median:>9.2f}{100 * (max(seconds) - min(seconds)) / median:>7.0f}%{size / median:>7.2f}"
                f"{base / median:>7.2f}{max(run[1] for run in runs):>8.0f}{tokens:>11,}{trained:>11,}"
            )


if __name__ == "__main__":
    main()
