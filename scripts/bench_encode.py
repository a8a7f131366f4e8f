"""Encodes texts with one library, in one process: run by `scripts/bench.py` in that library's own environment.

    python bench_encode.py LIBRARY TOKENIZER.JSON DIALOGUES

A text is what the messages of a dialogue say, each with a line break behind it; texts are encoded in batches, without
added special tokens, each batch timed from Python strings to the library's own result. Taking the ids out of it is not
timed. Prints seconds, tokens, and the SHA-256 of all ids (32 bits each, little-endian, one text after the other) as
JSON. Needs nothing but the library.
"""

from __future__ import annotations

import array
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 1000
"""Texts of a batch."""


def said(dialogues: Path) -> list[str]:
    """The texts of dialogues, one a line: as the core's example `tokenize` has them."""
    with dialogues.open(encoding="utf-8") as lines:
        records = map(json.loads, lines)
        contents = ([message.get("content") for message in record["messages"]] for record in records)
        return ["".join(f"{text}\n" for text in texts if isinstance(text, str)) for texts in contents]


def of_tokenizers(path: str) -> tuple[Callable[[list[str]], Any], Callable[[Any], bytes]]:
    """The reference, or its release candidate: the quickest call of each that gives ids."""
    import tokenizers

    tokenizer: Any = tokenizers.Tokenizer.from_file(path)
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)

    def ids(encodings: Any) -> bytes:  # noqa: ANN401  # of either version
        found = array.array("I")
        for encoding in encodings:
            found.extend(getattr(encoding, "ids", encoding))
        return found.tobytes()

    return lambda texts: encode(texts, add_special_tokens=False), ids


def of_gigatoken(path: str) -> tuple[Callable[[list[str]], Any], Callable[[Any], bytes]]:
    """Gigatoken."""
    import awkward  # type: ignore[import-not-found, unused-ignore]  # it comes with the library
    import gigatoken  # type: ignore[import-not-found, unused-ignore]

    tokenizer = gigatoken.Tokenizer(path)
    return (
        lambda texts: tokenizer.encode_batch(texts, parallel=False),
        lambda found: bytes(awkward.flatten(found).to_numpy().astype("<u4").tobytes()),
    )


def of_fastokens(path: str) -> tuple[Callable[[list[str]], Any], Callable[[Any], bytes]]:
    """Fastokens."""
    import fastokens  # type: ignore[import-not-found, unused-ignore]

    tokenizer = fastokens.Tokenizer.from_file(path)
    return tokenizer.encode_batch_flat, lambda found: bytes(found[0])


LIBRARIES = {"tokenizers": of_tokenizers, "gigatoken": of_gigatoken, "fastokens": of_fastokens}


def main() -> None:
    library, tokenizer, dialogues = sys.argv[1:]
    texts = said(Path(dialogues))
    start = time.monotonic()
    encode, ids = LIBRARIES[library](tokenizer)
    load = time.monotonic() - start
    seconds, tokens, digest = 0.0, 0, hashlib.sha256()
    for first in range(0, len(texts), BATCH):
        batch = texts[first : first + BATCH]
        start = time.monotonic()
        found = encode(batch)
        seconds += time.monotonic() - start
        flat = ids(found)
        tokens += len(flat) // 4
        digest.update(flat)
    print(json.dumps({"load_seconds": load, "seconds": seconds, "tokens": tokens, "digest": digest.hexdigest()}))


if __name__ == "__main__":
    main()
