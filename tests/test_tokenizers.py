"""Every kind of `tokenizer.json`: ids are the reference's, and trained ids say what the turn says, or it has a code.

The tokenizers are small and trained here, one of each kind that models have: byte-level and SentencePiece-like BPE,
Unigram, WordPiece, normalisers that change text, added tokens that swallow white space. Prompts and whole texts are
encoded by transformers; what the reference cannot say is left untrained.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import real_tokenizers
from oracle import trained_runs

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402  # after the skip

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "<s>{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }} <|im_end|>{% endif %}{% endfor %}"
)
START, STOP, UNKNOWN, OTHER = "<|im_start|>", "<|im_end|>", "<unk>", "<|other|>"
CORPUS = [
    "user assistant system hello there, hi! How can I help you? two answers, the other one is 12345.",
    "你好。再见！票价是多少？下午三点。 naïve café é à ö ABC Hello World  two  spaces \t tab\nline [INST] [/INST]",
    "a < b | c > d x y z <other|\n\nnew\n\n\nlines\n\n two",
] * 20


def special(text: str, **flags: bool) -> AddedToken:
    return AddedToken(text, special=True, **{"normalized": False, **flags})


def byte_level(
    *,
    stop: AddedToken | None = None,
    start: AddedToken | None = None,
    every_byte: bool = True,
    **parts: Any,  # noqa: ANN401  # parts of a tokenizer
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = parts.get("normalizer")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=parts.get("prefix", False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=parts.get("trim", False))
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if every_byte else []
    train(tokenizer, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(
        [start or special(START), stop or special(STOP), special(OTHER, **parts.get("other", {}))]
    )
    tokenizer.add_tokens(parts.get("added", []))
    return tokenizer


def sentence_piece(
    *, prefix: bool = True, scheme: str | None = None, specials: tuple[str, ...] = (START, STOP, OTHER)
) -> Tokenizer:
    """BPE over characters with spaces as `▁`, and bytes for what has no token: Llama 2's kind."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=UNKNOWN, fuse_unk=True))
    if scheme:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        first = [normalizers.Prepend("▁")] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=700, special_tokens=[UNKNOWN, *specials, *spelled], show_progress=False),
    )
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in spelled]
    return Tokenizer.from_str(json.dumps(data))


def unigram(scheme: str, normalizer: Any = None) -> Tokenizer:  # noqa: ANN401  # no types
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    specials = [UNKNOWN, START, STOP, OTHER]
    train(
        tokenizer,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token=UNKNOWN, show_progress=False),
    )
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = [UNKNOWN, START, STOP, OTHER]
    train(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False))
    return tokenizer


def train(tokenizer: Tokenizer, trainer: Any) -> None:  # noqa: ANN401  # no types
    tokenizer.train_from_iterator(CORPUS, trainer)


def lower(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def no_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


# Each kind: how it is made, what its normaliser makes of a text, whether white space comes back from its ids, and the
# share of turns in rows of their own that is expected at most.
KINDS: dict[str, tuple[Callable[[], Tokenizer], Callable[[str], str], bool, float]] = {
    "byte-level": (byte_level, str, True, 0.2),
    "byte-level-trimmed-offsets": (functools.partial(byte_level, trim=True), str, True, 0.2),
    "byte-level-space-before": (functools.partial(byte_level, prefix=True), str, True, 0.2),
    "byte-level-space-before-trimmed": (functools.partial(byte_level, prefix=True, trim=True), str, True, 0.2),
    "byte-level-nfkc-lowercase": (
        lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
        lower,
        True,
        0.2,
    ),
    "byte-level-no-accents": (
        lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
        no_accents,
        True,
        0.2,
    ),
    "byte-level-stripped": (lambda: byte_level(normalizer=normalizers.Strip()), str, False, 1.0),
    "byte-level-few-bytes": (functools.partial(byte_level, every_byte=False), str, True, 0.3),
    "stop-swallows-what-follows": (lambda: byte_level(stop=special(STOP, rstrip=True)), str, True, 0.2),
    "stop-swallows-what-precedes": (lambda: byte_level(stop=special(STOP, lstrip=True)), str, False, 0.2),
    "start-swallows-what-precedes": (lambda: byte_level(start=special(START, lstrip=True)), str, True, 0.2),
    "both-swallow-both": (
        lambda: byte_level(
            start=special(START, lstrip=True, rstrip=True), stop=special(STOP, lstrip=True, rstrip=True)
        ),
        str,
        False,
        0.2,
    ),
    "stop-found-in-normalised-text": (
        lambda: byte_level(normalizer=normalizers.Lowercase(), stop=special(STOP, normalized=True)),
        str.lower,
        True,
        0.2,
    ),
    "words-as-added-tokens": (
        lambda: byte_level(
            added=[
                AddedToken("two", single_word=True),
                AddedToken("there", single_word=True, normalized=False, lstrip=True),
                AddedToken("help", rstrip=True, normalized=False),
            ]
        ),
        str,
        False,
        0.2,
    ),
    "sentence-piece": (sentence_piece, str, False, 0.2),
    "sentence-piece-nothing-before": (functools.partial(sentence_piece, prefix=False), str, True, 0.2),
    "sentence-piece-space-before-the-first": (functools.partial(sentence_piece, scheme="first"), str, False, 0.2),
    "sentence-piece-space-before-each": (functools.partial(sentence_piece, scheme="always"), str, False, 0.2),
    "unigram-space-before-each": (functools.partial(unigram, "always"), str, False, 0.2),
    "unigram-space-before-the-first": (functools.partial(unigram, "first"), str, False, 0.2),
    "unigram-nfkc-single-spaces": (
        lambda: unigram("always", normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])),
        functools.partial(unicodedata.normalize, "NFKC"),
        False,
        0.3,
    ),
    "word-piece-lowercase": (word_piece, lambda text: no_accents(text).lower(), False, 0.2),
}
# Kinds that have no token for some characters.
LOSSY = (
    "byte-level-few-bytes",
    "unigram-space-before-each",
    "unigram-space-before-the-first",
    "unigram-nfkc-single-spaces",
    "word-piece-lowercase",
)


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


DIALOGUES = {
    "plain": turns("hello", "Hi! How can I help you?", "the other two", "two answers"),
    "repeated": turns("hi", "hi", "hi", "hi", "hi", "hi"),
    "white space": turns(" hello \n", "\n  two \n\n", "x ", "  one\n"),
    "a space": turns("hello", " ", "hello", "x  y"),
    "chinese": turns("你好。", "再见！", "票价是多少？", "下午三点。"),
    "scripts": turns("العربية", "क्षेत्र 한국어\u200b\r\nかな"),
    "marks": turns("e\u0301", "\u0301x", "\ufb01", "\u2167 １２３ \ufb01 e\u0301"),
    "emoji": turns("🎉", "🎉🎉 \U0001f469\u200d\U0001f469\u200d\U0001f467"),
    "capitals": turns("HELLO", "Hello World ÀÖ"),
    "words": turns("there help", "there help two twos helped  there  two  help  hello"),
    "long": turns("one " * 40, "the other " * 60),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a tokenizer as models are shipped: `tokenizer.json`, a configuration and a template."""

    def save(tokenizer: Tokenizer, template: str = CHATML, **config: object) -> Path:
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save(str(folder / "tokenizer.json"))
        written = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
        (folder / "tokenizer_config.json").write_text(json.dumps(written))
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return save


def renderer(folder: Path, **options: object) -> _dlgc.Renderer:
    return _dlgc.Renderer(dlgc.CompileOptions.of({"tokenizer": str(folder), **options}).to_json())


def squeezed(text: str) -> str:
    return "".join(text.split())


class Oracle:
    """What transformers and the reference say about a tokenizer folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Loads the folder as its users do."""
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        _, self.normalised, self.keeps_space, _ = KINDS[kind]

    def text(self, messages: list[dict[str, str]], *, prompt: bool = False) -> str:
        """What the template renders."""
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))

    def ids(self, text: str) -> list[int]:
        """Ids without added special tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def decoded(self, ids: list[int]) -> str:
        """The text of ids, nothing left out."""
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def can_say(self, content: str) -> bool:
        """Whether a content and its stop come back from their ids."""
        return self.says(self.decoded(self.ids(content + STOP)), content)

    def says(self, said: str, content: str) -> bool:
        """Whether a text is a content and its stop, normalised, but for white space."""
        return squeezed(said.replace("▁", " ")) == squeezed(self.normalised(content) + STOP)

    def check_turn(self, ids: list[int], span: tuple[int, int], messages: list[dict[str, str]], place: int) -> None:
        """The ids before the turn are those of its prompt, and its own say what it says."""
        start, end = span
        content = messages[place]["content"]
        assert ids[:start] == self.ids(self.text(messages[:place], prompt=True))
        said = self.decoded(ids[start:end])
        assert self.says(said, content)
        if self.keeps_space:
            assert said == self.normalised(content) + STOP
            assert self.decoded(ids[:end]) == self.decoded(ids[:start]) + said


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_references_and_targets_say_what_the_turns_say(
    folder_of: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    make, _, _, own_rows = KINDS[kind]
    folder = folder_of(make(), eos_token=STOP)
    oracle, render = Oracle(folder, kind), renderer(folder)
    trained, apart, lost = 0, 0, 0
    for messages in DIALOGUES.values():
        found = json.loads(render.render(json.dumps({"messages": messages}).encode()))
        # What the reference cannot say, and nothing else, has a code.
        said = [place for place in range(1, len(messages), 2) if oracle.can_say(messages[place]["content"])]
        codes = {item["code"] for item in found["diagnostics"] if item["severity"] == "error"}
        assert codes == (set() if len(said) == len(messages) / 2 else {"target-unproved"})
        assert (found["text"] is None) == (not said)
        lost += len(messages) // 2 - len(said)
        rows = found.get("rows", [])
        assert sorted(place for row in rows for place in row["trained_messages"]) == said
        for row in rows:
            whole = row["text"] == oracle.text(messages)
            assert not whole or row["input_ids"] == oracle.ids(row["text"])
            for span, place in zip(trained_runs(row["labels"]), row["trained_messages"], strict=True):
                oracle.check_turn(row["input_ids"], span, messages, place)
                trained += 1
                apart += not whole
    assert (lost > 0) == (kind in LOSSY)
    assert apart <= own_rows * trained, f"{apart} of {trained}"
    assert trained >= 12
    assert compile_and_verify(folder, tmp_path)["trained"] == trained
    print(f"{kind}: {trained} trained, {apart} in rows of their own, {lost} untrained")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_between_windows_has_the_ids_of_the_whole(folder_of: Callable[..., Path], kind: str) -> None:
    folder = folder_of(KINDS[kind][0](), eos_token=STOP)
    oracle = Oracle(folder, kind)
    messages = [message for messages in [*DIALOGUES.values()] * 2 for message in messages]
    options = {"max_length": 220, "min_context": 0.5, "summary": "extract", "control_tokens": "text"}
    found = json.loads(renderer(folder, **options).render(json.dumps({"messages": messages}).encode()))
    assert len(found["windows"]) > 2
    for row in found["rows"]:
        window = found["windows"][row["window"]]
        text, ids = row["text"].encode(), row["input_ids"]
        if row["text"] == window["text"]:
            assert ids == oracle.ids(row["text"])
        # Where spaces are merged, offsets do not tell where the prompt ended.
        for start, _ in trained_runs(row["labels"]) if oracle.keeps_space else ():
            assert ids[:start] == oracle.ids(text[: row["offsets"][start][0]].decode())


def compile_and_verify(folder: Path, tmp_path: Path) -> dict[str, Any]:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in DIALOGUES.values()))
    report = dlgc.compile(raw, tmp_path / "out", tokenizer=str(folder))
    verdict = dlgc.verify(tmp_path / "out")
    assert verdict.problems == []
    assert verdict.targets == report.ledger["turns"]["trained"]
    turns: dict[str, Any] = report.ledger["turns"]
    return turns


@pytest.mark.parametrize("kind", LOSSY)
def test_a_turn_that_the_tokenizer_cannot_say_has_a_code(folder_of: Callable[..., Path], kind: str) -> None:
    folder = folder_of(KINDS[kind][0](), eos_token=STOP)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lost = "ж"
    assert lost not in tokenizer.decode(tokenizer.encode(lost).ids, skip_special_tokens=False)
    with pytest.raises(dlgc.RejectedError) as raised:
        dlgc.render({"messages": turns("hello", f"two {lost} answers")}, tokenizer=str(folder))
    assert [item["code"] for item in raised.value.diagnostics] == ["target-unproved"]
    # In what the user says it is only context, and the server loses it as well.
    assert dlgc.render(
        {"messages": turns(f"two {lost}", "two answers")}, tokenizer=str(folder)
    ).row.trained_messages == [1]


def test_a_stop_that_is_no_token_is_trained_as_text_or_not_at_all(folder_of: Callable[..., Path]) -> None:
    record = {"messages": turns("hello", "two answers")}
    template = CHATML.replace(STOP, "<|stop|>")
    said = dlgc.render(record, tokenizer=str(folder_of(byte_level(), template)))
    assert [item["code"] for item in said.diagnostics] == ["stop-not-a-token"]
    assert said.row.text.endswith("<|stop|>\n")
    # WordPiece puts it together as `< | stop | >`, which stops nothing.
    with pytest.raises(dlgc.RejectedError) as raised:
        dlgc.render(record, tokenizer=str(folder_of(word_piece(), template)))
    assert [item["code"] for item in raised.value.diagnostics] == ["target-unproved"]


@pytest.mark.parametrize("scheme", ["before each", "nowhere", "first", "always"])
def test_targets_that_begin_with_a_space_follow_text_without_a_token_between(
    folder_of: Callable[..., Path], scheme: str
) -> None:
    metaspace = scheme if scheme in ("first", "always") else None
    made = sentence_piece(prefix=scheme != "nowhere", scheme=metaspace, specials=("<s>", STOP))
    folder = folder_of(made, INST, eos_token=STOP)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for messages in DIALOGUES.values():
        rendered = dlgc.render({"messages": messages}, tokenizer=str(folder))
        assert rendered.row.trained_messages == list(range(1, len(messages), 2))
        assert rendered.row.input_ids == tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
        assert squeezed(tokenizer.decode(rendered.row.input_ids)) == squeezed(rendered.text)
        for start, end in trained_runs(rendered.row.labels):
            before = tokenizer.decode(rendered.row.input_ids[:start], clean_up_tokenization_spaces=False)
            after = tokenizer.decode(rendered.row.input_ids[:end], clean_up_tokenization_spaces=False)
            assert before.endswith("[/INST]")
            assert after.startswith(f"{before} ")
            assert after.endswith(f" {STOP}")


OTHER_TEXTS = (f"a {OTHER} b", OTHER, f"x{OTHER}", f"  {OTHER}  y {OTHER}{OTHER}z", f"\n{OTHER}\n")
OTHERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "swallows what precedes": lambda: byte_level(other={"lstrip": True}),
    "swallows what follows": lambda: byte_level(other={"rstrip": True}),
    "found in normalised text": lambda: byte_level(normalizer=normalizers.Lowercase(), other={"normalized": True}),
    "sentence-piece": sentence_piece,
    "sentence-piece first": functools.partial(sentence_piece, scheme="first"),
    "unigram": functools.partial(unigram, "always"),
    "unigram first": functools.partial(unigram, "first"),
    "word-piece": word_piece,
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_a_control_token_as_text_is_encoded_as_if_it_were_none(
    folder_of: Callable[..., Path], kind: str, text: str
) -> None:
    tokenizer = OTHERS[kind]()
    folder = folder_of(tokenizer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != OTHER]
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary[:] = [["\ufdd5" if piece == OTHER else piece, score] for piece, score in vocabulary]
    elif OTHER in vocabulary:
        vocabulary["\ufdd5"] = vocabulary.pop(OTHER)
    without = Tokenizer.from_str(json.dumps(data))
    record = {"messages": turns(text, "two", "hi", "answers")}
    with pytest.raises(dlgc.RejectedError):
        dlgc.render(record, tokenizer=str(folder))
    rendered = dlgc.render(record, tokenizer=str(folder), control_tokens="text")
    assert rendered.row.trained_messages == [1, 3]
    assert rendered.row.input_ids == without.encode(rendered.text, add_special_tokens=False).ids
    said = dlgc.render({"messages": turns("hi", text)}, tokenizer=str(folder), control_tokens="text")
    assert tokenizer.token_to_id(OTHER) not in said.row.input_ids


def test_a_text_that_becomes_a_control_token_when_it_is_normalised_is_found(folder_of: Callable[..., Path]) -> None:
    tokenizer = byte_level(normalizer=normalizers.Lowercase(), other={"normalized": True})
    folder = folder_of(tokenizer)
    hidden = OTHER.upper()
    assert tokenizer.encode(f"a {hidden}").tokens[-1] == OTHER
    for policy in ("reject", "text"):
        with pytest.raises(dlgc.RejectedError) as raised:
            dlgc.render({"messages": turns(f"a {hidden} b", "two")}, tokenizer=str(folder), control_tokens=policy)
        assert [item["code"] for item in raised.value.diagnostics] == ["control-token"]
    allowed = dlgc.render({"messages": turns(f"{hidden} b", "two")}, tokenizer=str(folder), control_tokens="allow")
    assert [item["code"] for item in allowed.diagnostics] == ["control-token-allowed"]
    # The token that is found in the text as it stands is no concern.
    assert dlgc.render({"messages": turns(STOP.upper(), "two")}, tokenizer=str(folder)).row.trained_messages == [1]


def test_flags_of_added_tokens_are_those_of_the_configuration_as_in_transformers(
    folder_of: Callable[..., Path],
) -> None:
    tokenizer = byte_level()
    stop = tokenizer.token_to_id(STOP)
    flags = {
        "content": STOP,
        "lstrip": False,
        "normalized": False,
        "rstrip": True,
        "single_word": False,
        "special": True,
    }
    folder = folder_of(tokenizer, added_tokens_decoder={str(stop): flags})
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    rendered = dlgc.render({"messages": DIALOGUES["plain"]}, tokenizer=str(folder))
    assert rendered.row.input_ids == theirs(rendered.text, add_special_tokens=False)["input_ids"]
    assert rendered.row.input_ids != tokenizer.encode(rendered.text).ids
    assert rendered.row.trained_messages == [1, 3]
    unknown = folder_of(tokenizer, added_tokens_decoder={"9999": {**flags, "content": "<|new|>"}})
    with pytest.raises(dlgc.TokenizerError, match=r"gives the added token `<\|new\|>` the id 9999") as raised:
        renderer(unknown)
    assert "save_pretrained" in str(raised.value)


def test_dropout_left_in_a_tokenizer_does_not_make_ids_random(folder_of: Callable[..., Path]) -> None:
    folder = folder_of(byte_level())
    data = json.loads((folder / "tokenizer.json").read_text())
    plain = dlgc.render({"messages": DIALOGUES["long"]}, tokenizer=str(folder)).input_ids
    data["model"]["dropout"] = 0.9
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert dlgc.render({"messages": DIALOGUES["long"]}, tokenizer=str(folder)).input_ids == plain


FORMATS = {
    "tokenizer.model": ("holds a SentencePiece model, and no `tokenizer.json`", "AutoTokenizer.from_pretrained(DIR)"),
    "tekken.json": ("holds a `tekken.json`, and no `tokenizer.json`", "a folder of the model that has"),
    "vocab.json": ("holds the lists of a tokenizer, and no `tokenizer.json`", "AutoTokenizer.from_pretrained(DIR)"),
    "rwkv_vocab_v20230424.txt": ("holds an RWKV vocabulary, which no `tokenizer.json` can express", "longest match"),
    "model.gguf": ("", "GGUF"),
    "README.md": ("", "`tokenizer.json`"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("something else")
    message, hint = FORMATS[name]
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(dlgc.TokenizerError) as raised:
            renderer(given)
        found, _, help_ = str(raised.value).partition("\nhint: ")
        assert message in found
        assert hint in found + help_
        assert str(given) in found


def test_tiktoken_ranks_are_refused_with_what_to_do(tiktoken_ranks: Path) -> None:
    for given in (tiktoken_ranks, tiktoken_ranks / "qwen.tiktoken"):
        with pytest.raises(dlgc.TokenizerError, match="tiktoken ranks, which do not say how text is split") as raised:
            renderer(given)
        assert "convert_tiktoken_to_fast" in str(raised.value)


@pytest.mark.parametrize("name", real_tokenizers.NAMES)
def test_real_tokenizers_get_a_fast_path_that_does_as_the_reference(name: str) -> None:
    try:
        folder = real_tokenizers.folder(name)
    except real_tokenizers.UnavailableError as error:
        pytest.skip(str(error))
    verdict = dlgc.verify_tokenizer(folder, strings=1500)
    assert verdict.fast, verdict.why
    assert verdict.difference is None
    assert verdict.same == 1500


def test_a_tokenizer_of_unknown_parts_is_left_to_the_reference(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\\w+|\\W+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    verdict = dlgc.verify_tokenizer(tmp_path, strings=10)
    assert (verdict.fast, verdict.why, verdict.same) == (None, "its pre-tokenizer is not known", 0)


def test_a_tokenizer_that_was_tested_is_noted_and_nothing_but_time_depends_on_the_note(tmp_path: Path) -> None:
    chats, model = tmp_path / "chats.jsonl", tmp_path / "model"
    chats.write_text(
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "jazz"}]}\n' * 9
    )
    tokenizer = byte_level()
    model.mkdir()
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "chat_template.jinja").write_text(CHATML)

    def compiled(name: str, cache: Path | str) -> bytes:
        code = f"import dlgc; dlgc.compile({str(chats)!r}, {str(tmp_path / name)!r}, tokenizer={str(model)!r})"
        environment = {**os.environ, "DLGC_CACHE_DIR": str(cache), "HOME": str(tmp_path / "home")}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return b"".join(path.read_bytes() for path in sorted((tmp_path / name).rglob("*.arrow")))

    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    cache = tmp_path / "cache"
    shards = [compiled("first", cache), compiled("again", cache)]
    notes = list(cache.rglob("*"))
    [note] = [note for note in notes if note.is_file()]
    written = note.read_bytes()
    assert json.loads(written.splitlines()[0])["texts"] > 0
    for damaged in (b"not what was written", written[:-1], written[:-9] + bytes(9)):
        note.write_bytes(damaged)
        shards += [compiled(f"damaged-{len(shards)}", cache)]
        assert note.read_bytes() == written
    note.unlink()
    shards += [compiled("deleted", cache), compiled("none", ""), compiled("unwritable", blocked)]
    assert shards[0]
    assert len(set(shards)) == 1
    assert not (tmp_path / "home").exists()
