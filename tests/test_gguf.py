"""A GGUF file as the source of tokenizer and template: its ids are those of the original, or it is refused.

The originals speak through vectors (`.inp`, `.out`), through a `tokenizer.json` of the same family, and through the
digests by which the converter names a pre-tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from typing import TYPE_CHECKING, Any

import pytest

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RECORD = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
VECTORS = ("gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-coder", "llama-spm", "gemma-4", "bert-bge")
UNCERTAIN = {
    "aquila": "it names no pre-tokenizer",
    "mpt": "the pre-tokenizer `mpt` is not known",
    "qwen35": "the pre-tokenizer `qwen35` is not known",
    "nomic-bert-moe": "its vocabulary is a Unigram one",
    "phi-3": "its control tokens swallow white space",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The tokenizer folder that dlgc puts beside shards when it is given a file."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "chat.jinja").write_text(CHATML)
    (folder / "raw.jsonl").write_text(RECORD)

    def make(path: Path) -> Path:
        out = folder / path.name
        if not out.is_dir():
            dlgc.compile(folder / "raw.jsonl", out, tokenizer=str(path), chat_template=str(folder / "chat.jinja"))
        return out / "tokenizer"

    return make


def load(path: Path) -> _dlgc.Renderer:
    return _dlgc.Renderer(dlgc.CompileOptions.of({"tokenizer": str(path)}).to_json())


def ids(folder: Path, texts: list[str]) -> list[list[int]]:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def random_texts(seed: int, count: int, words: list[str]) -> list[str]:
    """Texts of words, ASCII, white space and any of Unicode's characters."""
    rng = random.Random(seed)  # noqa: S311  # texts, no secrets

    def character() -> str:
        ranges = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x2FFF), (0x3000, 0x9FFF), (0xA000, 0xD7FF), (0xE000, 0x1FFFF)]
        return chr(rng.randint(*rng.choice(ranges)))

    def piece() -> str:
        kind = rng.random()
        if kind < 0.4:
            return rng.choice(words)
        return character() if kind < 0.8 else rng.choice(" \n\t\r'0123456789") * rng.randint(1, 5)

    return ["".join(piece() for _ in range(rng.randint(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("name", VECTORS)
def test_ids_are_those_of_the_originals_vectors(llama_cpp: Path, made: Callable[[Path], Path], name: str) -> None:
    path = llama_cpp / f"ggml-vocab-{name}.gguf"
    with path.with_suffix(".gguf.inp").open(newline="", encoding="utf-8") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    expected = [[int(i) for i in line.split()] for line in path.with_suffix(".gguf.out").read_text().splitlines()]
    texts = texts[: len(expected)]
    assert len(texts) == len(expected) >= 40
    assert ids(made(path), texts) == expected


def test_every_known_name_has_the_digest_by_which_the_converter_names_it(
    llama_cpp: Path, smollm2: Path, made: Callable[[Path], Path]
) -> None:
    source = (llama_cpp / "base.py").read_text(encoding="utf-8")
    found = re.search(r"^ +chktxt = ('.*')$", source, re.MULTILINE)
    assert found is not None
    text = str(eval(found[1]))  # noqa: S307  # a literal of the converter's source
    named: dict[str, set[str]] = {}
    for digest, name in re.findall(r'chkhsh == "([0-9a-f]{64})":\s+# ref: \S+\s+res = "([^"]+)"', source):
        named.setdefault(digest, set()).add(name)
    for path, name, first in (
        (smollm2, "smollm", []),
        (llama_cpp / "ggml-vocab-gpt-2.gguf", "gpt-2", []),
        (llama_cpp / "ggml-vocab-qwen2.gguf", "qwen2", []),
        (llama_cpp / "ggml-vocab-llama-bpe.gguf", "smaug-bpe", []),
        (llama_cpp / "ggml-vocab-llama-bpe.gguf", "llama-bpe", [128000]),
        (llama_cpp / "ggml-vocab-deepseek-llm.gguf", "deepseek-llm", [100000]),
        (llama_cpp / "ggml-vocab-deepseek-coder.gguf", "deepseek-coder", [32013]),
    ):
        (encoded,) = ids(made(path), [text])
        digest = hashlib.sha256(str([*first, *encoded]).encode()).hexdigest()
        assert name in named[digest], path.name


@pytest.mark.parametrize(("name", "family"), [("qwen2", "qwen3"), ("llama-bpe", "llama3_1")])
def test_ids_are_those_of_a_tokenizer_json_of_the_family(
    llama_cpp: Path, made: Callable[[Path], Path], real_tokenizer: Callable[[str], Path], name: str, family: str
) -> None:
    original = real_tokenizer(family)
    words = [
        "hello",
        " world",
        "naïve",
        "e\u0301",
        "a\u0323\u0302",
        "下午3:45",
        "'RE",
        "\ufb01",
        "क्षेत्र",
        "\U0001f469\u200d\U0001f467",
    ]
    texts = random_texts(1, 2000, words)
    assert ids(made(llama_cpp / f"ggml-vocab-{name}.gguf"), texts) == ids(original, texts)


@pytest.mark.parametrize(
    ("family", "name"), [("deepseek_v3", "deepseek-v3"), ("gpt4o", "gpt-4o"), ("gptoss", "gpt-4o"), ("qwen3", "qwen2")]
)
def test_a_real_tokenizer_comes_back_from_a_file_that_only_names_its_pre_tokenizer(
    tmp_path: Path, made: Callable[[Path], Path], real_tokenizer: Callable[[str], Path], family: str, name: str
) -> None:
    original = real_tokenizer(family)
    path = tmp_path / f"{family}.gguf"
    path.write_bytes(byte_level(original, name))
    added = [token["content"] for token in json.loads((original / "tokenizer.json").read_text())["added_tokens"]]
    texts = random_texts(2, 1000, ["hello", " World", "e\u0301", "下午3:45", *added[:30]])
    assert ids(made(path), texts) == ids(original, texts)
    # The same file under another name is caught by the digest.
    path.write_bytes(byte_level(original, "gpt-2"))
    with pytest.raises(dlgc.TokenizerError, match="its ids are not those that the pre-tokenizer `gpt-2` stands for"):
        load(path)


def test_scores_give_back_the_merges_of_a_sentence_piece_tokenizer(
    tmp_path: Path, made: Callable[[Path], Path], real_tokenizer: Callable[[str], Path]
) -> None:
    original = real_tokenizer("llama2")
    data = json.loads((original / "tokenizer.json").read_text())
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    made_by: dict[str, int] = {}
    for rank, merge in enumerate(data["model"]["merges"]):
        made_by.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    kinds = [6 if re.fullmatch("<0x[0-9A-F]{2}>", token) else 3 if token in ("<s>", "</s>") else 1 for token in tokens]
    kinds[0] = 2
    path = tmp_path / "sentence_piece.gguf"
    entries = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(made_by.get(token, 1_000_000)) for token in tokens],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    path.write_bytes(gguf(entries))
    texts = random_texts(3, 1500, ["hello", " world", "<s>", "</s>", " </s> ", "▁", "  ", "naïve", "aaaaaaa"])
    assert ids(made(path), texts) == ids(original, texts)


def test_a_whole_model_file_is_read_without_its_tensors_and_its_dataset_is_sound(
    smollm2: Path, examples: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    report = dlgc.compile(examples / "chat_zh.jsonl", tmp_path / "out", tokenizer=str(smollm2))
    assert report.ledger["turns"] == {"total": 66, "trained": 65, "untrained": {"excluded-by-record": 1}}
    assert dlgc.verify(tmp_path / "out").problems == []
    folder = tmp_path / "out" / "tokenizer"
    assert sum(path.stat().st_size for path in folder.iterdir()) < smollm2.stat().st_size / 10
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]
    rendered = dlgc.render({"messages": messages}, tokenizer=str(smollm2))
    # The model's own template puts a system message first.
    assert rendered.text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    theirs = tokenizer.apply_chat_template(messages, return_dict=True)
    assert rendered.text == tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered.input_ids == theirs["input_ids"]
    assert tokenizer.decode([label for label in rendered.labels if label != -100]) == "Paris.<|im_end|>"
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": [2]}
    # Again from the folder: nothing of the file is needed any more.
    again = dlgc.render({"messages": messages}, tokenizer=str(folder))
    assert again.input_ids == rendered.input_ids


def test_bytes_that_a_vocabulary_lacks_leave_the_turn_untrained(smollm2: Path) -> None:
    """SmolLM2 has no token for some bytes, and the reference drops them without a word."""
    ask = {"role": "user", "content": "q\x06?"}
    with pytest.raises(dlgc.RejectedError) as raised:
        dlgc.render({"messages": [ask, {"role": "assistant", "content": "a\x06b"}]}, tokenizer=str(smollm2))
    assert {item["code"] for item in raised.value.diagnostics} == {"target-unproved"}
    rendered = dlgc.render({"messages": [ask, {"role": "assistant", "content": "a b"}]}, tokenizer=str(smollm2))
    assert rendered.row.trained_messages == [1]


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_is_not_certain_is_refused(llama_cpp: Path, name: str) -> None:
    path = llama_cpp / f"ggml-vocab-{name}.gguf"
    with pytest.raises(dlgc.TokenizerError) as raised:
        load(path)
    assert UNCERTAIN[name] in str(raised.value)
    assert "hint: give the folder with the `tokenizer.json` of the model" in str(raised.value)


def test_a_named_template_of_the_file_is_used_when_asked_for(
    tmp_path: Path, real_tokenizer: Callable[[str], Path]
) -> None:
    path = tmp_path / "model.gguf"
    other = CHATML.replace("{{ message.role }}", "[{{ message.role }}]").replace(">assistant", ">[assistant]")
    more = {"tokenizer.chat_template": CHATML, "tokenizer.chat_template.brackets": other}
    path.write_bytes(byte_level(real_tokenizer("qwen3"), "qwen2", more))
    record = json.loads(RECORD)
    assert dlgc.render(record, tokenizer=str(path)).text.startswith("<|im_start|>user\n")
    assert dlgc.render(record, tokenizer=str(path), chat_template="brackets").text.startswith("<|im_start|>[user]\n")


def test_a_damaged_file_is_refused_in_words_or_read(smollm2: Path, tmp_path: Path) -> None:
    """Nothing else: no other exception, no crash, no endless reading."""
    rng = random.Random(4)  # noqa: S311  # damage, no secrets
    with smollm2.open("rb") as file:
        whole = file.read(3_000_000)  # more than the header
    path = tmp_path / "damaged.gguf"
    refused = 0
    for trial in range(40):
        data = bytearray(whole)
        if trial % 2:
            del data[rng.choice([rng.randrange(500), rng.randrange(1_000_000)]) :]
        for _ in range(trial % 5):
            if data:
                data[rng.randrange(min(len(data), 2500))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load(path)
        except (dlgc.TokenizerError, dlgc.TemplateError):
            refused += 1
    assert refused >= 20  # those that were cut, at least


def gguf(entries: dict[str, Any]) -> bytes:
    """A GGUF file with these keys and no tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value_of(value: Any) -> tuple[int, bytes]:  # noqa: ANN401  # what a format holds
        match value:
            case bool():
                return 7, struct.pack("<?", value)
            case int():
                return 4, struct.pack("<I", value)
            case float():
                return 6, struct.pack("<f", value)
            case str():
                return 8, text(value)
            case _:
                kinds = {bool: 7, int: 5, float: 6, str: 8}
                head = struct.pack("<IQ", kinds[type(value[0])], len(value))
                if isinstance(value[0], str):
                    return 9, head + b"".join(map(text, value))
                return 9, head + struct.pack(f"<{len(value)}{'if'[isinstance(value[0], float)]}", *value)

    out = [b"GGUF", struct.pack("<IQQ", 3, 0, len(entries))]
    for key, value in entries.items():
        kind, encoded = value_of(value)
        out += [text(key), struct.pack("<I", kind), encoded]
    return b"".join(out)


def byte_level(folder: Path, name: str, more: dict[str, Any] | None = None) -> bytes:
    """What a converter writes of a byte-level `tokenizer.json`: tokens, kinds, merges, a name."""
    data = json.loads((folder / "tokenizer.json").read_text())
    by_id = {index: (token, 1) for token, index in data["model"]["vocab"].items()}
    for token in data["added_tokens"]:
        by_id[token["id"]] = (token["content"], 3 if token["special"] else 4)
    size = max(by_id) + 20
    tokens = [by_id.get(index, (f"[PAD{index}]", 5 if index % 2 else 4)) for index in range(size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    first = next((token["id"] for token in data["added_tokens"] if "begin" in token["content"]), None)
    entries = {
        "general.architecture": "some",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": [token for token, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.merges": merges,
        **({} if first is None else {"tokenizer.ggml.bos_token_id": first}),
        **(more or {}),
    }
    return gguf(entries)


def test_a_folder_with_a_file_says_how_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf({"general.architecture": "some"}))
    with pytest.raises(dlgc.TokenizerError, match=re.escape(f"hint: give the file itself: `--tokenizer {tmp_path}")):
        load(tmp_path)
