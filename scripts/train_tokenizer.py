"""Trains the built-in tokenizer: a byte-level BPE over the project's own examples.

Run `python scripts/train_tokenizer.py` to write `rust/dlgc/assets/builtin/tokenizer.json` and `tokenizer_config.json`.
The training text is a frozen list, `scripts/tokenizer_corpus.txt`: one dialogue id and the SHA-256 of its record a
line. Examples that are added later do not change the tokenizer; an example on the list that changes is an error.
`--freeze` writes the list anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "dialogues"
CORPUS = ROOT / "scripts" / "tokenizer_corpus.txt"
ASSETS = ROOT / "rust" / "dlgc" / "assets" / "builtin"

VOCABULARY = 6144
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
SCAFFOLD = ["<think>", "</think>", "<tools>", "</tools>", "<tool_call>", "</tool_call>", "<state>", "</state>"]
# Words with their space, digits one by one, runs of punctuation, line breaks; Han characters apart from letters.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{Han}+| ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def records() -> Iterator[tuple[str, str]]:
    """Yields id and source line of every example, in file order."""
    for path in sorted(EXAMPLES.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["id"], line


def strings(value: object) -> Iterator[str]:
    """Yields every string of a JSON value, and the JSON of every object that is not a message."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from strings(element)
    elif isinstance(value, dict):
        if "role" not in value and "conversation" not in value:
            yield json.dumps(value, ensure_ascii=False)
            return
        for element in value.values():
            yield from strings(element)


def corpus(*, freeze: bool) -> list[str]:
    """Returns the frozen examples; with `freeze`, all there are, and writes the list."""
    found = dict(records())
    digests = {name: hashlib.sha256(line.encode()).hexdigest()[:16] for name, line in found.items()}
    if freeze:
        CORPUS.write_text("".join(f"{name} {digest}\n" for name, digest in digests.items()), encoding="utf-8")
    listed = [line.split() for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    changed = [name for name, digest in listed if digests.get(name) != digest]
    if changed:
        sys.exit(f"these examples changed since the list was frozen: {', '.join(changed)}")
    return [text for name, _ in listed for text in strings(json.loads(found[name]))]


def train(texts: list[str]) -> Tokenizer:
    """Trains the tokenizer; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SCAFFOLD),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in SCAFFOLD])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", action="store_true", help="write the list of examples anew")
    parser.add_argument("--check", action="store_true", help="train, and fail if the committed tokenizer differs")
    arguments = parser.parse_args()
    tokenizer = train(corpus(freeze=arguments.freeze))
    text = tokenizer.to_str(pretty=False) + "\n"
    if arguments.check:
        same = (ASSETS / "tokenizer.json").read_text(encoding="utf-8") == text
        sys.exit(0 if same else "the committed tokenizer.json is not what this script trains")
    (ASSETS / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[2],
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    (ASSETS / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} entries, {len(text)} bytes")


if __name__ == "__main__":
    main()
