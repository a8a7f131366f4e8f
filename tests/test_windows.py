"""Windows: longer dialogues are trained turn by turn, each once, within the budget, after prompts of a server."""

from __future__ import annotations

import functools
import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IGNORED = -100
WORDS = [
    *("train", "bern", "leave", "seat", "fare", "time", "platform", "morning", "ticket", "return", "price", "window"),
    *("火车", "明天", "北京", "票价", "上午", "座位"),
]


@functools.cache
def renderer(**options: Any) -> Any:  # noqa: ANN401
    return _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())


def rendered(record: dict[str, Any], **options: Any) -> dlgc.Rendered:  # noqa: ANN401
    return dlgc.Rendered.from_json(renderer(**options).render(json.dumps(record, ensure_ascii=False).encode()))


def sentence(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most))) + "."


def dialogue(seed: int, exchanges: int, most: int = 30) -> dict[str, Any]:
    """A random dialogue: with a system message, tools, documents, reasoning, calls, state and summaries, or without."""
    draw = random.Random(seed)  # noqa: S311
    messages: list[dict[str, Any]] = []
    if draw.random() < 0.6:
        messages.append({"role": "system", "content": sentence(draw, 12)})
    has_tools, has_state, reasons = (draw.random() < 0.5 for _ in range(3))
    for number in range(exchanges):
        messages.append({"role": "user", "content": f"{number}: {sentence(draw, most)}"})
        for step in range(draw.randint(0, 3) if has_tools else 0):
            calls = [
                {"id": f"c{number}{step}{index}", "function": {"name": "fare", "arguments": {"to": sentence(draw, 3)}}}
                for index in range(draw.randint(1, 2))
            ]
            messages.append({"role": "assistant", "tool_calls": calls})
            messages.extend(
                {"role": "tool", "name": "fare", "tool_call_id": call["id"], "content": sentence(draw, most)}
                for call in calls
            )
        answer: dict[str, Any] = {"role": "assistant", "content": f"{number}! {sentence(draw, most)}"}
        if reasons and draw.random() < 0.5:
            answer["reasoning_content"] = sentence(draw, 10)
        if has_state and draw.random() < 0.7:
            answer["state"] = {"intent": draw.choice(WORDS), "slots": {draw.choice(WORDS): draw.choice(WORDS)}}
        if draw.random() < 0.1:
            answer["train"] = False
        messages.append(answer)
    messages[-1].pop("train", None)
    record: dict[str, Any] = {"messages": messages}
    if has_tools:
        properties = {"to": {"type": "string"}}
        function = {"name": "fare", "parameters": {"type": "object", "properties": properties}}
        record["tools"] = [{"type": "function", "function": function}]
    if draw.random() < 0.3:
        record["summaries"] = [
            {"upto": index, "text": sentence(draw, 12)} for index in range(2, len(messages), draw.randint(2, 6))
        ]
    return record


def dialogue_for(model: dict[str, str], seed: int, exchanges: int) -> dict[str, Any]:
    """A random dialogue, some with documents where the template shows them."""
    record = dialogue(seed, exchanges)
    draw = random.Random(seed)  # noqa: S311
    if model.get("tokenizer", "builtin") == "builtin" and draw.random() < 0.5:
        record["documents"] = [{"title": f"Document {number}", "text": sentence(draw, 15)} for number in range(2)]
    return record


def runs(row: dlgc.RenderedRow) -> list[range]:
    """Where the targets of a row are."""
    borders = [
        at
        for at in range(len(row.labels) + 1)
        if (at < len(row.labels) and row.labels[at] != IGNORED) != (at > 0 and row.labels[at - 1] != IGNORED)
    ]
    return [range(start, end) for start, end in zip(borders[::2], borders[1::2], strict=True)]


def trainable(record: dict[str, Any]) -> list[int]:
    return [
        index
        for index, message in enumerate(record["messages"])
        if message["role"] == "assistant" and message.get("train", True)
    ]


def obeys(record: dict[str, Any], found: dlgc.Rendered, max_length: int) -> None:
    """Checks what DESIGN.md section 6 promises of windows."""
    messages = record["messages"]
    trained = [message for row in found.rows for message in row.trained_messages]
    codes = {turn["message"]: turn["code"] for turn in found.turns if "code" in turn}

    # Exactly once, or with a code; nothing above the budget.
    assert sorted(trained) == sorted(set(trainable(record)) - set(codes))
    assert sorted(turn["message"] for turn in found.turns) == trainable(record)
    assert all(len(row.input_ids) <= max_length for row in found.rows)
    head = list(itertools.takewhile(lambda index: messages[index]["role"] == "system", range(len(messages))))
    for number, window in enumerate(found.windows):
        shown = [source for source in window.sources if source is not None]
        own = [message for row in found.rows if row.window == number for message in row.trained_messages]
        assert shown[: len(head)] == head
        assert shown == sorted(set(shown))
        assert not own or max(own) == shown[-1] or codes
        # No result without its call, and no message missing between the first one that is recent and the last one.
        calls = {call["id"] for source in shown for call in messages[source].get("tool_calls", [])}
        assert all(messages[source].get("tool_call_id") in calls | {None} for source in shown)
        recent = shown[len(head) :]
        gaps = [(one, other) for one, other in itertools.pairwise(recent) if other != one + 1]
        assert len(gaps) <= 1
        # Where it begins inside an exchange, the question stands before it, and results before the turn are whole.
        for one, other in gaps:
            assert messages[one]["role"] == "user"
            assert messages[other]["role"] == "assistant"
            assert messages[other - 1]["role"] == "tool"
        if record.get("documents") or record.get("tools"):
            pinned = [*record.get("documents", []), *(tool["function"] for tool in record.get("tools", []))]
            assert all(item.get("text", item.get("name")) in window.text for item in pinned)


def keeps_context(record: dict[str, Any], found: dlgc.Rendered, options: dict[str, Any]) -> int:
    """Checks that each target keeps its share of context, or all that there is or fits; returns how many keep less."""
    budget, short = options["max_length"], 0
    extra = {name: record[name] for name in ("tools", "summaries", "documents") if name in record}
    model = {name: value for name, value in options.items() if name in ("tokenizer", "chat_template")}
    (plain,) = rendered(long_chat(1), **model).rows
    after = len(plain.input_ids) - runs(plain)[-1].stop  # what the template prints behind a turn is kept free
    for row in found.rows:
        sources = [source for source in found.windows[row.window].sources if source is not None]
        targets = runs(row)
        if len(targets) != len(row.trained_messages):
            continue  # two that follow each other without a header between them
        for message, target in zip(row.trained_messages, targets, strict=True):
            before = [source for source in sources if source < message]
            if target.start >= options["min_context"] * budget or len(before) == message:
                continue
            room = len(target) + after
            most = dlgc.window(record["messages"][:message], max_new_tokens=room, **extra, **options)
            assert [source for source in most.sources if source is not None] == before
            short += 1
    return short


SHOWS_ALL = (
    "<|im_start|>head\n{{ tools | tojson if tools else '' }}{% for document in documents or [] %}"
    "{{ document.title }}: {{ document.text }}\n{% endfor %}<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.reasoning_content %}<think>"
    "{{ message.reasoning_content }}</think>{% endif %}{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["builtin", "qwen3", "llama3_1", "documents"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Templates of four kinds: prompts that nest, reasoning that is dropped, tools in the question, and all shown."""
    if request.param == "documents":
        template = tmp_path_factory.mktemp("templates") / "all.jinja"
        template.write_text(SHOWS_ALL)
        return {"chat_template": str(template)}
    if request.param == "builtin":
        return {"tokenizer": "builtin"}
    return {"tokenizer": str(request.getfixturevalue({"qwen3": "qwen3", "llama3_1": "llama3"}[request.param]))}


# Each length with another way to make summaries.
WAYS: list[dict[str, Any]] = [
    {"max_length": 256, "summary": "auto", "min_context": 0.5},
    {"max_length": 400, "summary": "extract", "min_context": 0.25, "summary_place": "user"},
    {"max_length": 640, "summary": "none", "min_context": 1.0},
    {"max_length": 1024, "summary": "data", "min_context": 0.0},
]


def test_windows_of_random_dialogues_obey(model: dict[str, str]) -> None:
    cut = short = 0
    for seed in range(80):
        way = WAYS[seed % len(WAYS)]
        record = dialogue_for(model, seed, 1 + seed % 15)
        bytes_ = json.dumps(record, ensure_ascii=False).encode()
        raw = renderer(**model, **way).render(bytes_)
        assert raw == renderer(**model, **way).render(bytes_)
        try:
            found = dlgc.Rendered.from_json(raw)
        except dlgc.RejectedError as error:
            codes = {item["code"] for item in error.diagnostics if item["severity"] == "error"}
            assert codes & {"turn-too-long", "head-too-long", "template-refused", "field-lost"}, codes
            continue
        obeys(record, found, way["max_length"])
        short += keeps_context(record, found, {**model, **way})
        cut += len(found.windows) > 1
    assert cut > 12
    assert short > 5


def test_a_served_history_has_the_ids_of_the_compiled_prompt(model: dict[str, str]) -> None:
    served = 0
    for seed in range(40):
        way = WAYS[seed % len(WAYS)]
        record = dialogue_for(model, seed, 4 + seed % 12)
        try:
            found = dlgc.Rendered.from_json(
                renderer(**model, **way).render(json.dumps(record, ensure_ascii=False).encode())
            )
        except dlgc.RejectedError:
            continue
        for number, window in enumerate(found.windows):
            shown = [source for source in window.sources if source is not None]
            row = next((row for row in found.rows if row.window == number and shown[-1] in row.trained_messages), None)
            if row is None:
                continue
            start = max(at for at, label in enumerate(row.labels) if label != IGNORED and row.labels[at - 1] == IGNORED)
            last = shown[-1]
            extra = {name: record[name] for name in ("tools", "summaries", "documents") if name in record}
            again = dlgc.window(
                record["messages"][:last],
                max_new_tokens=len(row.input_ids) - start,
                **model,
                **extra,
                **way,
            )
            # More of what came before may fit where another turn of the compiled window was longer.
            assert [source for source in again.sources if source is not None][-1] == last - 1
            if again.sources == window.sources[:-1]:
                assert again.input_ids == row.input_ids[:start]
                assert again.summary == window.summary
                served += len(found.windows) > 1
            else:
                assert len(again.sources) > len(window.sources[:-1])
    assert served > 10


# A template whose prompts nest, for any tokenizer that has a stop token.
SIMPLE = (
    "{% for message in messages %}{{ eos_token }}{{ message.role }}\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ eos_token }}assistant\n{% endif %}"
)


@pytest.mark.parametrize("name", ["qwen3", "llama2", "gemma3", "deepseek_v3", "gptoss"])
def test_what_is_remembered_between_windows_has_the_ids_of_the_whole(
    name: str, real_tokenizer: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    folder = real_tokenizer(name)
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    template = tmp_path / "simple.jinja"
    template.write_text(SIMPLE)
    rows = 0
    for seed in range(12):
        record = {
            "messages": [m for m in dialogue(seed, 14, 60)["messages"] if m.get("content") and m["role"] != "tool"]
        }
        options = {"tokenizer": str(folder), "chat_template": str(template), "max_length": 300, "summary": "extract"}
        found = rendered(record, **options)
        assert len(found.windows) > 1
        for row in found.rows:
            if row.text == found.windows[row.window].text:
                assert row.input_ids == reference.encode(row.text, add_special_tokens=False).ids
                rows += 1
    assert rows > 12


@pytest.mark.parametrize("name", ["qwen3", "llama2", "gemma3", "deepseek_v3", "gptoss"])
def test_a_large_dialogue_has_the_ids_of_its_text(
    name: str, real_tokenizer: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    folder = real_tokenizer(name)
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    template = tmp_path / "simple.jinja"
    template.write_text(SIMPLE)
    draw = random.Random(1)  # noqa: S311
    messages = [
        {"role": role, "content": " ".join(sentence(draw, 30) for _ in range(40))}
        for _ in range(12)
        for role in ("user", "assistant")
    ]
    options = {"tokenizer": str(folder), "chat_template": str(template), "max_length": "none"}
    (row,) = rendered({"messages": messages}, **options).rows
    assert len(row.text.encode()) > 1 << 16
    assert row.input_ids == reference.encode(row.text, add_special_tokens=False).ids


def fewest(record: dict[str, Any], max_length: int, min_context: float) -> int:
    """The fewest windows, of all ways there are, of a system message and exchanges, measured by rendering them."""
    head, *said = record["messages"]
    exchanges = len(said) // 2

    @functools.cache
    def measured(cut: int, turn: int) -> tuple[int, int]:
        """Tokens of the row, and of the prompt of its last turn."""
        messages = [head, *said[2 * cut : 2 * turn + 2]]
        ((_, row),) = enumerate(rendered({"messages": messages}, max_length="none").rows)
        starts = [at for at, label in enumerate(row.labels) if label != IGNORED and row.labels[at - 1] == IGNORED]
        return len(row.input_ids), starts[-1]

    def will_do(cut: int, turn: int) -> bool:
        row, prompt = measured(cut, turn)
        enough = prompt >= min_context * max_length or cut == 0 or measured(cut - 1, turn)[0] > max_length
        return row <= max_length and enough

    best = [0]
    for end in range(1, exchanges + 1):
        ways = [
            best[first] + 1
            for first in range(end)
            if any(all(will_do(cut, turn) for turn in range(first, end)) for cut in range(first + 1))
        ]
        best.append(min(ways) if ways else best[-1])  # a turn that fits nowhere has no window
    return best[-1]


def test_no_way_has_fewer_windows() -> None:
    draw = random.Random(3)  # noqa: S311
    cut = 0
    for _ in range(40):
        messages = [{"role": "system", "content": sentence(draw, 6)}]
        for _ in range(draw.randint(2, 6)):
            messages.append({"role": "user", "content": sentence(draw, 20)})
            messages.append({"role": "assistant", "content": sentence(draw, 20)})
        max_length, min_context = draw.choice([80, 120, 160, 220]), draw.choice([0.0, 0.3, 0.5, 0.8, 1.0])
        expected = fewest({"messages": messages}, max_length, min_context)
        try:
            found = rendered({"messages": messages}, max_length=max_length, min_context=min_context, summary="none")
        except dlgc.RejectedError:
            assert expected == 0
            continue
        assert len(found.windows) == expected
        cut += expected > 1
    assert cut > 20


def long_chat(exchanges: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *(
                {"role": role, "content": text}
                for number in range(exchanges)
                for role, text in (("user", f"Is {number} odd?"), ("assistant", "Yes." if number % 2 else "No."))
            ),
        ]
    }


def lengths(found: dlgc.Rendered) -> list[int]:
    return [len(row.input_ids) for row in found.rows]


def test_what_fits_is_one_window() -> None:
    whole = rendered(long_chat(20), max_length="none")
    (length,) = lengths(whole)
    assert rendered(long_chat(20), max_length=length).rows == whole.rows
    assert len(rendered(long_chat(20), max_length=length - 1).windows) == 2


def test_each_mode_loses_what_it_says(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(long_chat(20)) + "\n" + json.dumps(long_chat(2)) + "\n")
    reports = {
        mode: dlgc.compile(raw, tmp_path / mode, window=mode, max_length=100, max_rejects=1.0)
        for mode in ("cover", "last", "drop", "truncate", "reject")
    }
    turns = {mode: report.ledger["turns"] for mode, report in reports.items()}
    assert {mode: found["total"] for mode, found in turns.items()} == dict.fromkeys(reports, 22)
    assert turns["cover"] == {"total": 22, "trained": 22, "untrained": {}}
    for mode, code in {
        "last": "outside-window",
        "drop": "dialogue-dropped",
        "truncate": "turn-truncated",
        "reject": "dialogue-too-long",
    }.items():
        lost = turns[mode]["untrained"][code]
        assert turns[mode]["trained"] + lost == 22
        assert (lost == 20) == (mode in ("drop", "reject"))
        assert dlgc.verify(tmp_path / mode, source=raw).sound, mode
    assert reports["drop"].ledger["dialogues"] == {"imported": 2, "compiled": 1, "excluded": 1, "rejected": 0}
    assert reports["reject"].rejected == 1
    assert dlgc.verify(tmp_path / "cover", source=raw).sound
    rows = dlgc.scan(tmp_path / "cover").collect()
    assert max(row[0] for row in rows["window"].to_list()) == reports["cover"].windows["windows"] - 1
    # `last` keeps the end, `truncate` the beginning.
    kept = {
        mode: dlgc.scan(tmp_path / mode).collect()["trained_messages"].to_list()[0][0] for mode in ("last", "truncate")
    }
    assert max(kept["last"]) == 40
    assert min(kept["truncate"]) == 2
    whole = rendered(long_chat(20), max_length="none").rows[0]
    cut = dlgc.scan(tmp_path / "truncate").collect()["input_ids"].to_list()[0]
    assert cut == whole.input_ids[:100]


def test_a_long_turn_is_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    record = long_chat(3)
    record["messages"][4]["content"] = "Yes, it is. " * 60
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(record) + "\n")
    whole = rendered(record, max_length="none").rows[0]
    left = dlgc.compile(raw, tmp_path / "left", max_length=100, max_rejects=1.0)
    assert left.ledger["turns"] == {"total": 3, "trained": 2, "untrained": {"turn-too-long": 1}}
    for packing in ("none", "bfd"):
        out = tmp_path / packing
        report = dlgc.compile(raw, out, max_length=100, long_turns="cut", packing=packing)
        assert report.ledger["turns"] == {"total": 3, "trained": 3, "untrained": {}}
        assert report.diagnostics["turn-cut"]["count"] == 1
        assert report.certificate is not None
        assert report.certificate["cut"] == 1
        assert "train no stop: 1" in str(report.statement)
        assert dlgc.verify(out, source=raw).sound
    row = next(row for row in rendered(record, max_length=100, long_turns="cut").rows if row.trained_messages == [4])
    assert len(row.input_ids) == 100
    (target,) = runs(row)
    assert target.stop == 100
    start = whole.text.index("Yes, it is.")
    answer = [
        token for token, (at, _) in zip(whole.input_ids, whole.offsets, strict=True) if at >= len(whole.text[:start])
    ]
    assert row.labels[target.start :] == answer[: len(target)]
    # Nothing of the turn fits after what it answers.
    record["messages"][3]["content"] = "Is it? " * 60
    assert {turn.get("code") for turn in rendered(record, max_length=100, long_turns="cut").turns} >= {"turn-too-long"}


def test_a_manifest_that_hides_a_cut_target_is_no_sound_one(tmp_path: Path) -> None:
    record = long_chat(3)
    record["messages"][4]["content"] = "Yes, it is. " * 60
    (tmp_path / "raw.jsonl").write_text(json.dumps(record) + "\n")
    dlgc.compile(tmp_path / "raw.jsonl", tmp_path / "out", max_length=100, long_turns="cut")
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["certificate"]["cut"]
    path.write_text(json.dumps(manifest))
    assert any("is no stop" in problem["message"] for problem in dlgc.verify(tmp_path / "out").problems)


def test_summaries_come_from_where_they_are_asked_for() -> None:
    record = long_chat(30)
    record["summaries"] = [{"upto": 2, "text": "About 0."}, {"upto": 30, "text": "About many numbers."}]
    record["messages"][4]["state"] = {"intent": "odd", "slots": {"number": "1"}}
    record["messages"][6]["state"] = {"slots": {"last": "2"}}

    def said(**options: Any) -> set[str | None]:  # noqa: ANN401
        return {window.summary for window in rendered(record, max_length=120, **options).windows}

    head = "Summary of the conversation so far:\n"
    assert said(summary="data") == {None, head + "About 0.", head + "About many numbers."}
    state = head + '{"intent": "odd", "slots": {"number": "1", "last": "2"}}'
    assert said(summary="state") == {None, state}
    assert said(summary="auto") == said(summary="data")
    assert said(summary="none") == {None}
    assert said(summary="data", summary_wording="({summary})") == {None, "(About 0.)", "(About many numbers.)"}
    window = rendered(record, max_length=120, summary="data").windows[-1]
    assert window.messages[0] == {"role": "system", "content": f"Be brief.\n\n{head}About many numbers."}
    window = rendered(record, max_length=120, summary="data", summary_place="user").windows[-1]
    assert window.messages[1] == {"role": "user", "content": f"{head}About many numbers."}
    assert window.sources[:2] == [0, None]
    del record["summaries"]
    extracted = said(summary="extract")
    assert all(text is None or "odd" in text for text in extracted)
    assert None in extracted
    with pytest.raises(dlgc.OptionsError, match="summary_wording"):
        rendered(record, summary_wording="no place")


class Clerk:
    """Writes summaries, and remembers what was asked."""

    def __init__(self, words: int = 8) -> None:
        """Writes so many words of each."""
        self.words = words
        self.batches: list[list[dlgc.SummaryRequest]] = []

    def __call__(self, requests: list[dlgc.SummaryRequest]) -> list[str]:
        """Takes a batch."""
        self.batches.append(requests)
        return [self.of(request.messages) for request in requests]

    def of(self, messages: list[dict[str, Any]]) -> str:
        """What it writes of these."""
        said = " ".join(str(message["content"]) for message in messages).split()
        return f"{len(messages)} messages: {' '.join(said[-self.words :])}"

    @property
    def asked(self) -> list[dlgc.SummaryRequest]:
        """Every request so far."""
        return [request for batch in self.batches for request in batch]


@pytest.mark.parametrize("words", [8, 2000])
def test_a_callable_writes_each_summary_once(words: int, tmp_path: Path) -> None:
    records = [dialogue(seed, 3 + seed % 14) for seed in range(40)]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    cache = tmp_path / "cache"
    clerk = Clerk(words)
    options: dict[str, Any] = {"max_length": 400, "summary_cache": cache, "max_rejects": 1.0}
    report = dlgc.compile(raw, tmp_path / "one", summary=clerk, threads=1, **options)
    assert report.windows["summaries"] > 12
    assert len(clerk.batches) < len(clerk.asked)
    texts = [json.dumps(request.messages) for request in clerk.asked]
    assert len(texts) == len(set(texts))
    # Shown, in their place, never trained, and within the budget: the windows obey as all do.
    for record in records:
        try:
            found = dlgc.render(record, summary=Clerk(0), **options)
        except dlgc.RejectedError:
            continue
        obeys(record, found, 400)
        head = sum(message["role"] == "system" for message in record["messages"])
        for window in found.windows:
            recent = [source for source in window.sources if source is not None][head:]
            begins = next((one for one, other in itertools.pairwise(recent) if other != one + 1), None)
            begins = recent[0] if begins is None else recent[recent.index(begins) + 1]
            known = [item for item in record.get("summaries", []) if head <= item["upto"] < begins]
            if begins > head and not known:
                assert window.summary is not None
                assert f"{begins - head} messages: " in window.summary
    # Nothing is asked for twice: not with other threads, not by a server, not without the callable.
    again = Clerk(words)
    other = dlgc.compile(raw, tmp_path / "two", summary=again, threads=3, **options)
    assert not again.batches
    alone = dlgc.compile(raw, tmp_path / "three", summary="cache", **options)
    digests = {tuple(shard["blake3"] for shard in found.manifest["shards"]) for found in (report, other, alone)}
    assert len(digests) == 1
    assert dlgc.verify(tmp_path / "one", source=raw).sound


def test_a_server_asks_for_the_summary_that_was_compiled(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_length": 150, "summary_cache": tmp_path}
    found = dlgc.render(long_chat(30), summary=Clerk(), **options)
    again = Clerk()
    row, window = found.rows[-1], found.windows[-1]
    start = runs(row)[-1].start
    history = long_chat(30)["messages"][:-1]
    served = dlgc.window(history, summary=again, max_new_tokens=len(row.input_ids) - start, **options)
    assert not again.batches
    assert (served.summary, served.input_ids) == (window.summary, row.input_ids[:start])
    with pytest.raises(dlgc.OptionsError, match="lacks 1 of the summaries"):
        dlgc.window(history, summary="cache", max_new_tokens=4, max_length=140, summary_cache=tmp_path)


def test_a_callable_that_fails_writes_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(long_chat(30)) + "\n")
    options: dict[str, Any] = {"max_length": 150, "summary_cache": tmp_path / "cache"}
    with pytest.raises(dlgc.OptionsError, match="summary_cache"):
        dlgc.compile(raw, tmp_path / "out", summary=Clerk(), max_length=150)
    for wrong in (
        lambda requests: ["one"] * (len(requests) + 1),
        lambda _: "text",
        lambda requests: [1] * len(requests),
    ):
        with pytest.raises(dlgc.OptionsError, match="expected as many texts"):
            dlgc.compile(raw, tmp_path / "out", summary=wrong, **options)

    def breaks(_: object) -> list[str]:
        raise ConnectionError("the model is away")

    with pytest.raises(ConnectionError, match="the model is away"):
        dlgc.compile(raw, tmp_path / "out", summary=breaks, **options)
    with pytest.raises(OSError, match="the summary cache has no"):
        dlgc.compile(raw, tmp_path / "out", summary="cache", **options)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "cache").glob("*/*"))


def test_a_summary_in_chinese_is_worded_in_chinese() -> None:
    messages = [
        {"role": role, "content": text}
        for number in range(30)
        for role, text in (("user", f"第{number}班火车去北京多少钱？"), ("assistant", f"第{number}班要{number}元。"))
    ]
    windows = rendered({"messages": messages}, max_length=200, summary="extract").windows
    summaries = [window.summary for window in windows if window.summary]
    assert summaries
    assert all(text.startswith("此前对话的摘要：\n") for text in summaries)


def test_no_result_stands_without_its_call_where_results_come_late() -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "late", "function": {"name": "wait", "arguments": {}}}]}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Start."}, call]
    for number in range(12):
        messages += [{"role": "user", "content": f"And {number}?"}, {"role": "assistant", "content": "Not yet. " * 8}]
    messages += [{"role": "tool", "tool_call_id": "late", "content": "done"}, {"role": "assistant", "content": "Done."}]
    found = rendered({"messages": messages}, max_length=400)
    obeys({"messages": messages}, found, 400)
    assert {turn["code"] for turn in found.turns if "code" in turn} == {"turn-too-long"}


def test_windows_are_the_same_at_any_number_of_threads(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(dialogue(seed, 12), ensure_ascii=False) + "\n" for seed in range(30)))
    digests = set()
    for threads in (1, 3):
        report = dlgc.compile(raw, tmp_path / str(threads), max_length=400, threads=threads, summary="extract")
        assert report.windows["windows"] > report.windows["dialogues"] > 0
        assert report.manifest is not None
        digests.add(tuple(shard["blake3"] for shard in report.manifest["shards"]))
    assert len(digests) == 1
