"""Rows of preferences: one prompt, as a server sends it, and answers of which every turn follows its own."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from blake3 import blake3

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Message = dict[str, Any]

IGNORED = -100
WORDS = ["train", "bern", "leave", "seat", "fare", "platform", "morning", "ticket", "火车", "明天", "票价", "座位"]
FARE = {"type": "function", "function": {"name": "fare", "parameters": {"type": "object", "properties": {"to": {}}}}}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def said(content: str, **rest: object) -> Message:
    return {"role": "assistant", "content": content, **rest}


def call(number: object, to: str) -> Message:
    return {
        "role": "assistant",
        "tool_calls": [{"id": f"c{number}", "function": {"name": "fare", "arguments": {"to": to}}}],
    }


def result(number: object, content: str) -> Message:
    return {"role": "tool", "tool_call_id": f"c{number}", "name": "fare", "content": content}


PAIR: dict[str, Any] = {
    "id": "p",
    "messages": [user("To Bern?"), said("When?"), user("Now.")],
    "chosen": [said("At nine.")],
    "rejected": [said("At nine, or at ten, or later.")],
    "negative": "verbose",
}
CALLS: dict[str, Any] = {
    "id": "calls",
    "tools": [FARE],
    "messages": [user("To Bern?")],
    "chosen": [call(1, "Bern"), result(1, "51"), said("51 francs."), user("Thanks."), said("Have a good trip.")],
    "rejected": [said("I cannot say.")],
}
JUDGED: dict[str, Any] = {"id": "j", "messages": [user("To Bern?")], "completion": [said("No.")], "label": False}


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def rows(shards: Path) -> list[dict[str, Any]]:
    return dlgc.scan(shards).collect().to_dicts()


def codes(report: dlgc.Report) -> dict[str, int]:
    return {code: tally["count"] for code, tally in report.diagnostics.items() if tally["severity"] == "error"}


def compiled(folder: Path, *records: dict[str, Any], rows: str = "preference", **options: Any) -> dlgc.Report:  # noqa: ANN401
    """Compiles records into `folder/out`; whatever comes of them, the ledger closes and the dataset is sound."""
    source = write(folder / "raw.jsonl", *records)
    report = dlgc.compile(source, folder / "out", rows=rows, overwrite=True, **options)
    records_, dialogues, turns = (report.ledger[name] for name in ("records", "dialogues", "turns"))
    assert records_["read"] == records_["imported"] + records_["excluded"] + records_["rejected"] == len(records)
    assert dialogues["imported"] == dialogues["compiled"] + dialogues["excluded"] + dialogues["rejected"]
    assert turns["total"] == turns["trained"] + sum(turns["untrained"].values())
    verdict = dlgc.verify(folder / "out", source=source)
    assert verdict.sound, verdict
    return report


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlgc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- The law --------------------------------------------------------------------------------------------------------


class Reference:
    """What transformers and the tokenizer themselves say of a prompt."""

    def __init__(self, folder: Path) -> None:
        """Loads tokenizer and template."""
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def prompt(self, messages: list[Message], record: dict[str, Any]) -> list[int]:
        """Ids of what a server sends."""
        plain = [{"content": "", **message} for message in messages]
        text = self.tokenizer.apply_chat_template(
            plain,
            tools=record.get("tools"),
            documents=record.get("documents"),
            add_generation_prompt=True,
            tokenize=False,
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def obeys(self, record: dict[str, Any], row: dict[str, Any]) -> int:
        """Checks the prompt of a pair and each turn of both answers; returns how many there are."""
        asked = record["messages"]
        prompt = self.prompt(asked, record)
        assert row["prompt_ids"] == prompt
        turns = 0
        for side in ("chosen", "rejected"):
            ids, labels, messages = row[f"{side}_ids"], row[f"{side}_labels"], row[f"{side}_messages"]
            assert len(ids) == len(labels)
            assert labels[-1] == ids[-1] == self.tokenizer.eos_token_id
            runs = targets(labels)
            assert len(runs) == len(messages)
            whole = [*asked, *record[side]]
            assert messages == [index for index in range(len(asked), len(whole)) if whole[index]["role"] == "assistant"]
            for message, target in zip(messages, runs, strict=True):
                assert prompt + ids[: target.start] == self.prompt(whole[:message], record)
                assert self.tokenizer.decode(ids[target.start : target.stop]).endswith(self.tokenizer.eos_token)
                content = whole[message].get("content", "")
                assert content in self.tokenizer.decode(ids[target.start : target.stop])
            turns += len(runs)
        return turns


def targets(labels: list[int]) -> list[range]:
    """Where the runs of trained tokens are."""
    trained = [label != IGNORED for label in labels]
    edges = [at for at in range(len(labels) + 1) if (at < len(labels) and trained[at]) != (at > 0 and trained[at - 1])]
    return [range(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def sentence(draw: random.Random, most: int = 12) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most))) + "."


def exchange(draw: random.Random, name: str) -> list[Message]:
    """What an assistant does with a question: calls, or none, and an answer."""
    steps = [
        [call(f"{name}{step}", sentence(draw, 2)), result(f"{name}{step}", sentence(draw))]
        for step in range(draw.choice([0, 0, 1, 2]))
    ]
    return [*(message for step in steps for message in step), said(f"{name}: {sentence(draw)}")]


def pair(seed: int, exchanges: int | None = None) -> dict[str, Any]:
    """A random pair: with a system message, documents, calls, and answers of several turns."""
    draw = random.Random(seed)  # noqa: S311
    messages = [{"role": "system", "content": sentence(draw)}] if draw.random() < 0.5 else []
    for number in range(draw.randint(0, 3) if exchanges is None else exchanges):
        messages += [user(f"{number}? {sentence(draw, 30)}"), *exchange(draw, f"{number}")]
    messages.append(user(sentence(draw)))
    record: dict[str, Any] = {"id": str(seed), "messages": messages, "tools": [FARE]}
    for side in ("chosen", "rejected"):
        answer = exchange(draw, side)
        while draw.random() < 0.3:
            answer += [user(sentence(draw)), *exchange(draw, f"{side}{len(answer)}")]
        record[side] = answer
    return record


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in tokenizer as a folder."""
    folder = tmp_path_factory.mktemp("builtin")
    dlgc.compile(write(folder / "raw.jsonl", {"messages": [user("a"), said("b")]}), folder / "out")
    return folder / "out" / "tokenizer"


def test_prompts_and_turns_of_random_pairs_are_those_of_transformers(builtin: Path, tmp_path: Path) -> None:
    records = [pair(seed) for seed in range(60)]
    report = compiled(tmp_path, *records, tokenizer=builtin)
    assert report.failure is None
    reference = Reference(builtin)
    turns = sum(reference.obeys(record, row) for record, row in zip(records, rows(tmp_path / "out"), strict=True))
    assert turns == report.ledger["turns"]["trained"] > 150


def test_qwen3_compiles_what_nests_and_refuses_the_rest(qwen3: Path, tmp_path: Path) -> None:
    """Its template drops the empty think block of a turn once anything follows."""
    records = [pair(seed) for seed in range(120)]
    report = compiled(tmp_path, *records, tokenizer=qwen3, max_rejects=1.0)
    left = [record for record in records if len(record["chosen"]) == len(record["rejected"]) == 1]
    assert codes(report) == {"answer-not-nested": len(records) - len(left)}
    reference = Reference(qwen3)
    found = rows(tmp_path / "out")
    assert sum(reference.obeys(record, row) for record, row in zip(left, found, strict=True)) == 2 * len(left) > 12
    assert all("<think>\n\n</think>" in reference.tokenizer.decode(row["chosen_ids"]) for row in found)


def test_calls_with_reasoning_nest_with_qwen3(qwen3: Path, tmp_path: Path) -> None:
    steps = [{**call(1, "Bern"), "reasoning_content": "Look."}, result(1, "51"), said("51.", reasoning_content="So.")]
    record = {**PAIR, "tools": [FARE], "chosen": steps}
    compiled(tmp_path, record, tokenizer=qwen3)
    (row,) = rows(tmp_path / "out")
    assert Reference(qwen3).obeys(record, row) == 3


def test_the_last_turn_alone_can_be_trained_where_turns_do_not_nest(qwen3: Path, tmp_path: Path) -> None:
    report = compiled(tmp_path, CALLS, tokenizer=qwen3, train_on="last_turn")
    (row,) = rows(tmp_path / "out")
    reference = Reference(qwen3)
    assert row["prompt_ids"] == reference.prompt(CALLS["messages"], CALLS)
    (target,) = targets(row["chosen_labels"])
    before = [*CALLS["messages"], *CALLS["chosen"][:-1]]
    assert row["prompt_ids"] + row["chosen_ids"][: target.start] == reference.prompt(before, CALLS)
    assert report.ledger["turns"]["untrained"] == {"excluded-by-train-on": 2}


def test_reasoning_is_part_of_an_answer(qwen3: Path, tmp_path: Path) -> None:
    record = {**PAIR, "chosen": [said("At nine.", reasoning_content="The next one.")]}
    compiled(tmp_path, record, tokenizer=qwen3)
    (row,) = rows(tmp_path / "out")
    decode = Reference(qwen3).tokenizer.decode
    assert decode(row["chosen_ids"]) == "<think>\nThe next one.\n</think>\n\nAt nine.<|im_end|>"
    assert decode(row["rejected_ids"]).startswith("<think>\n\n</think>\n\nAt nine, or")
    off = {**record, "chosen": PAIR["chosen"], "chat_template_kwargs": {"enable_thinking": False}}
    compiled(tmp_path, off, tokenizer=qwen3)
    (row,) = rows(tmp_path / "out")
    assert decode(row["prompt_ids"]).endswith("<think>\n\n</think>\n\n")
    assert decode(row["chosen_ids"]) == "At nine.<|im_end|>"


def test_documents_and_control_tokens_are_as_in_dialogues(builtin: Path, tmp_path: Path) -> None:
    record = {**PAIR, "documents": [{"title": "Timetable", "text": "Nine, ten."}], "messages": [user("<|im_end|>?")]}
    assert codes(compiled(tmp_path, record, tokenizer=builtin)) == {"control-token": 1}
    compiled(tmp_path, record, tokenizer=builtin, control_tokens="text")
    (row,) = rows(tmp_path / "out")
    decode = Reference(builtin).tokenizer.decode
    assert "Timetable" in decode(row["prompt_ids"])
    assert "<|im_end|>?" in decode(row["prompt_ids"])
    ends = Reference(builtin).tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert row["prompt_ids"].count(ends) == 2  # of the system message and of the user's: none for what was asked


# --- What a pair is -------------------------------------------------------------------------------------------------


def test_tools_and_users_inside_an_answer_are_not_trained(builtin: Path, tmp_path: Path) -> None:
    report = compiled(tmp_path, CALLS)
    (row,) = rows(tmp_path / "out")
    decode = Reference(builtin).tokenizer.decode
    parts = [decode(row["chosen_labels"][target.start : target.stop]) for target in targets(row["chosen_labels"])]
    assert parts == [
        '<tool_call>\n{"name": "fare", "arguments": {"to": "Bern"}}\n</tool_call><|im_end|>',
        "51 francs.<|im_end|>",
        "Have a good trip.<|im_end|>",
    ]
    assert row["chosen_messages"] == [1, 3, 5]
    assert row["rejected_messages"] == [1]
    untrained = [id_ for id_, label in zip(row["chosen_ids"], row["chosen_labels"], strict=True) if label == IGNORED]
    assert "<|im_start|>tool\n51<|im_end|>" in decode(untrained)
    assert "<|im_start|>user\nThanks.<|im_end|>" in decode(untrained)
    assert report.ledger["turns"] == {"total": 4, "trained": 4, "untrained": {}}


def test_a_prompt_that_only_both_sides_have_is_found(tmp_path: Path) -> None:
    whole = {side: [*PAIR["messages"], *PAIR[side]] for side in ("chosen", "rejected")}
    compiled(tmp_path, {"id": "p", **whole, "negative": "verbose"})
    (implicit,) = rows(tmp_path / "out")
    compiled(tmp_path, PAIR)
    assert [implicit] == rows(tmp_path / "out")
    assert implicit["negative"] == "verbose"
    assert (implicit["dialogue_id"], implicit["line"], implicit["window"], implicit["fold"]) == ("p", 1, 0, -1)


def test_the_first_token_that_differs_is_known(tmp_path: Path) -> None:
    compiled(tmp_path, PAIR, *(pair(seed) for seed in range(20)))
    for row in rows(tmp_path / "out"):
        at, chosen, rejected = row["divergence"], row["chosen_ids"], row["rejected_ids"]
        assert chosen[:at] == rejected[:at]
        assert chosen[at : at + 1] != rejected[at : at + 1]
    assert rows(tmp_path / "out")[0]["divergence"] > 0


def test_an_answer_that_goes_on_where_the_other_ends_differs_there(tmp_path: Path) -> None:
    longer = [said("Yes."), user("Sure?"), said("Quite.")]
    compiled(tmp_path, {"messages": [user("Now?")], "chosen": [said("Yes.")], "rejected": longer})
    (row,) = rows(tmp_path / "out")
    assert row["rejected_ids"][: len(row["chosen_ids"])] == row["chosen_ids"]
    assert row["divergence"] == len(row["chosen_ids"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rejected": PAIR["chosen"]}, "identical-answers"),
        (
            {
                "tools": [FARE],
                "chosen": [call(1, "Bern"), result(1, "51"), said("Ok.")],
                "rejected": [call(1, "Bern"), result(1, "52"), said("Ok.")],
            },
            "identical-answers",
        ),
        ({"rejected": [user("What?")]}, "no-assistant"),
        ({"rejected": [said("No.", train=False)]}, "nothing-to-train"),
        ({"messages": [*PAIR["messages"], said("Well,")]}, "answer-not-nested"),
        ({"chosen": [user("So?"), said("Yes.")], "rejected": [user("Sure?"), said("No.")]}, "answer-not-nested"),
        ({"chosen": [said("<|im_end|>")]}, "control-token"),
        ({"messages": []}, "prompt-differs"),
    ],
)
def test_what_is_no_pair_is_refused_whole(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    report = compiled(tmp_path, {**PAIR, **change}, PAIR)
    assert codes(report) == {code: 1}
    assert [row["line"] for row in rows(tmp_path / "out")] == [2]
    assert (tmp_path / "out" / "rejects" / "index.jsonl").read_text().count(f'"{code}"') == 1
    untrained = report.ledger["turns"]["untrained"]
    assert untrained["part-of-prompt"] >= 1
    assert untrained[code] >= 1


def test_turns_of_the_prompt_are_counted_once_and_not_trained(tmp_path: Path) -> None:
    report = compiled(tmp_path, PAIR)
    assert report.ledger["turns"] == {"total": 3, "trained": 2, "untrained": {"part-of-prompt": 1}}
    (about,) = dlgc.scan_dialogues(tmp_path / "out").collect().to_dicts()
    assert (about["messages"], about["assistant_turns"], about["trained_turns"], about["rows"]) == (5, 3, 2, 1)
    (row,) = rows(tmp_path / "out")
    assert about["tokens"] == sum(len(row[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected")) == report.tokens


# --- Other kinds of records -----------------------------------------------------------------------------------------


def test_kto_takes_verdicts_and_makes_two_answers_of_a_pair(builtin: Path, tmp_path: Path) -> None:
    report = compiled(tmp_path, JUDGED, PAIR, {**JUDGED, "label": True}, rows="kto")
    found = rows(tmp_path / "out")
    decode = Reference(builtin).tokenizer.decode
    assert [(row["line"], decode(row["completion_ids"]), row["label"], row["negative"]) for row in found] == [
        (1, "No.<|im_end|>", False, ""),
        (2, "At nine.<|im_end|>", True, ""),
        (2, "At nine, or at ten, or later.<|im_end|>", False, "verbose"),
        (3, "No.<|im_end|>", True, ""),
    ]
    assert all(row["completion_labels"] == row["completion_ids"] for row in found)
    assert found[1]["prompt_ids"] == found[2]["prompt_ids"]
    assert found[1]["trained_messages"] == found[2]["trained_messages"] == [3]
    assert report.statement == (
        "4 judged answers with 4 targets, each the exact continuation of its inference prompt, ending in its stop token"
    )
    assert report.answers is not None
    assert (report.answers["chosen"]["answers"], report.answers["rejected"]["answers"]) == (2, 2)
    assert report.answers["chosen_longer"] is None


def test_each_kind_of_rows_says_what_it_does_not_take(tmp_path: Path) -> None:
    plain = {"messages": [user("Hi"), said("Hello")]}
    records = (PAIR, JUDGED, plain)
    wanted = {
        "sft": ("preference-record", [3]),
        "preference": ("no-preference", [1]),
        "kto": ("no-preference", [1, 1, 2]),
    }
    for kind, (code, lines) in wanted.items():
        report = compiled(tmp_path, *records, rows=kind)
        taken = dlgc.scan(tmp_path / "out").select("line").collect()["line"]
        assert (taken.explode() if kind == "sft" else taken).to_list() == lines
        assert codes(report) == {code: 3 - len(set(lines))}
        assert report.ledger["records"]["rejected"] == 3 - len(set(lines))
    assert (
        "`--rows preference` compiles pairs"
        in dlgc.check(tmp_path / "raw.jsonl", rows="sft").diagnostics["preference-record"]["examples"][0]["help"]
    )
    report = compiled(tmp_path, *records, where="id = 'p'")
    assert (report.ledger["records"]["excluded"], report.failure) == (2, None)


@pytest.mark.parametrize(
    "options",
    [
        {"packing": "bfd"},
        {"mask": "template"},
        {"target": "template"},
        {"window": "truncate"},
        {"long_turns": "cut"},
    ],
)
@pytest.mark.parametrize("kind", ["preference", "kto"])
def test_options_that_make_no_sense_are_refused_in_words(tmp_path: Path, kind: str, options: dict[str, str]) -> None:
    ((name, value),) = options.items()
    message = f"`{name}` is `{value}`, which rows of `{kind}` cannot have\nhint: "
    with pytest.raises(dlgc.OptionsError, match=message):
        dlgc.compile(write(tmp_path / "raw.jsonl", PAIR), tmp_path / "out", rows=kind, **options)
    assert not (tmp_path / "out").exists()


# --- Windows --------------------------------------------------------------------------------------------------------


@functools.cache
def renderer(**options: Any) -> Any:  # noqa: ANN401
    return _dlgc.Renderer(dlgc.CompileOptions.of(options).to_json())


@pytest.fixture(params=["builtin", "qwen3"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["cover", "last"])
def test_both_answers_of_a_long_pair_fit_after_the_prompt_that_a_server_would_show(
    model: Path, tmp_path: Path, mode: str
) -> None:
    """A server that leaves room for the longer answer sends the very prompt of the pair."""
    budget = 320
    records = []
    for seed in range(40):
        record = pair(seed, exchanges=2 + seed % 12)
        records.append({**record, "chosen": record["chosen"][-1:], "rejected": record["rejected"][-1:]})
    options: dict[str, Any] = {"tokenizer": str(model), "max_length": budget, "summary": "extract", "window": mode}
    report = compiled(tmp_path, *records, **options)
    assert set(codes(report)) <= {"turn-too-long", "head-too-long"}
    assert report.windows["dialogues"] == report.windows["windows"] > 15
    assert report.windows["summaries"] > 5
    found = {row["line"]: row for row in rows(tmp_path / "out")}
    (plain,) = dlgc.render({"messages": [user("a"), said("b")]}, tokenizer=str(model)).rows
    after = len(plain.labels) - targets(plain.labels)[-1].stop  # what the template prints behind a turn is kept free
    for line, row in found.items():
        record = records[line - 1]
        longest = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        assert len(row["prompt_ids"]) + longest <= budget
        served = dlgc.window(record["messages"], tools=record["tools"], max_new_tokens=longest + after, **options)
        assert served.input_ids == row["prompt_ids"], line


def test_a_pair_that_looks_long_and_fits_is_no_window(tmp_path: Path) -> None:
    report = compiled(tmp_path, {**PAIR, "messages": [user("the train " * 450)]}, max_length=1000)
    assert report.tokens == report.source_tokens > 900
    assert report.windows["dialogues"] == 0


def test_windows_that_lose_pairs_count_them(tmp_path: Path) -> None:
    long = pair(3, exchanges=20)
    report = compiled(tmp_path, long, PAIR, max_length=128, window="drop")
    assert report.ledger["dialogues"] == {"imported": 2, "excluded": 1, "compiled": 1, "rejected": 0}
    assert report.ledger["turns"]["untrained"]["dialogue-dropped"] > 1
    report = compiled(tmp_path, long, PAIR, max_length=128, window="reject")
    assert codes(report) == {"dialogue-too-long": 1}


def test_a_pair_is_too_long_where_one_answer_is(tmp_path: Path) -> None:
    longer = {**PAIR, "rejected": [said("no " * 400)]}
    report = compiled(tmp_path, longer, PAIR, max_length=128)
    assert codes(report) == {"turn-too-long": 1}
    assert report.ledger["turns"]["untrained"] == {"part-of-prompt": 2, "turn-too-long": 2}
    headed = {**PAIR, "messages": [{"role": "system", "content": "no " * 400}, *PAIR["messages"]]}
    assert codes(compiled(tmp_path, headed, PAIR, max_length=128)) == {"head-too-long": 1}


def test_summaries_that_a_callable_writes_stand_before_both_answers(tmp_path: Path) -> None:
    def write_summaries(requests: list[dlgc.SummaryRequest]) -> list[str]:
        return ["They spoke of trains." for _ in requests]

    records = [pair(seed, exchanges=12) for seed in range(8)]
    source = write(tmp_path / "raw.jsonl", *records)
    options: dict[str, Any] = {"max_length": 512, "summary": write_summaries, "summary_cache": str(tmp_path / "cache")}
    report = dlgc.compile(source, tmp_path / "out", rows="preference", **options)
    assert report.windows["summaries"] == report.windows["windows"] > 4
    assert dlgc.verify(tmp_path / "out", source=source).sound


# --- Datasets -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred pairs, verdicts and other records, some of which are refused."""
    folder = tmp_path_factory.mktemp("many")
    records = [pair(seed) for seed in range(300)]
    for index in range(0, 300, 17):
        records[index] = {**PAIR, "id": str(index), "rejected": PAIR["chosen"]}
    for index in range(5, 300, 23):
        records[index] = {**JUDGED, "id": str(index)}
    return write(folder / "many.jsonl", *records)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", ["preference", "kto"])
def test_threads_and_interruptions_change_nothing(many: Path, tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"rows": kind, "max_rejects": 1.0, "shard_tokens": 5000, "split": {"validation": 0.2}}
    whole, out = tmp_path / "whole", tmp_path / "out"
    report = dlgc.compile(many, whole, threads=1, **options)
    assert len(list((whole / "train").glob("*.arrow"))) > 3

    class EnoughError(Exception):
        pass

    for shards in (1, 3):

        def stop(*_: object, shards: int = shards) -> None:
            if len(list(out.glob("*/data-*.arrow"))) >= shards:
                raise EnoughError

        with pytest.raises(EnoughError):
            dlgc.compile(many, out, threads=4, progress=stop, **options)
    again = dlgc.compile(many, out, threads=4, **options)
    assert again.resumed > 0
    assert again.answers == report.answers
    assert digests(out) == digests(whole)
    assert dlgc.verify(out, source=many).sound


def test_datasets_polars_and_lists_read_the_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    compiled(tmp_path, PAIR, CALLS)
    loaded, mapped = datasets.load_from_disk(str(tmp_path / "out" / "train")), dlgc.open(tmp_path / "out")
    assert loaded.features == mapped.features
    assert loaded[0] == mapped[0] == rows(tmp_path / "out")[0]
    assert mapped.column_names[:5] == ["prompt_ids", "chosen_ids", "rejected_ids", "chosen_labels", "rejected_labels"]
    assert dlgc.scan(tmp_path / "out").filter(pl.col("divergence") > 0).select("dialogue_id").collect().height == 1


def test_length_statistics_of_both_sides(tmp_path: Path) -> None:
    records = [pair(seed) for seed in range(41)]
    report = compiled(tmp_path, *records)
    frame = (
        dlgc.scan(tmp_path / "out")
        .select(
            *(
                pl.col(f"{side}_labels").list.eval(pl.element() != IGNORED).list.sum().alias(side)
                for side in ("chosen", "rejected")
            )
        )
        .collect()
    )
    assert report.answers is not None
    for side in ("chosen", "rejected"):
        found = report.answers[side]
        assert found["answers"] == frame.height
        assert found["mean"] == pytest.approx(frame[side].mean(), abs=0.051)
        assert found["median"] == frame[side].median()
    assert report.answers["chosen_longer"] == pytest.approx((frame["chosen"] > frame["rejected"]).mean(), abs=1e-6)
    assert report.answers["chosen_shorter"] == pytest.approx((frame["chosen"] < frame["rejected"]).mean(), abs=1e-6)
    assert dlgc.manifest(tmp_path / "out")["answers"] == report.answers


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the first row and makes the digests fit again: only what the row says of itself can tell."""
    path = folder / "train" / "data-00000.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    changed = table.to_pylist()
    change(changed[0])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(changed, schema=table.schema))
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["shards"][0]
    shard["bytes"], shard["blake3"] = path.stat().st_size, blake3(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def set_last(column: str, value: int) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        row[column][-1] = value

    return change


def swap(row: dict[str, Any]) -> None:
    for column in ("ids", "labels", "hash", "target_hash", "messages"):
        row[f"chosen_{column}"], row[f"rejected_{column}"] = row[f"rejected_{column}"], row[f"chosen_{column}"]


def same(row: dict[str, Any]) -> None:
    for column in ("ids", "labels", "hash", "target_hash", "messages"):
        row[f"rejected_{column}"] = row[f"chosen_{column}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_last("prompt_ids", 5), "the decoded prompt does not have the hash of the compilation"),
        (set_last("chosen_labels", IGNORED), "an answer goes on after its last target"),
        (set_last("rejected_labels", 3), "label 3"),
        (lambda row: row["rejected_ids"].pop(), "an answer of"),
        (lambda row: row["prompt_ids"].clear(), "the prompt is empty"),
        (lambda row: row.update(divergence=0), "both sides differ first in token"),
        (lambda row: row.update(chosen_hash=1), "the decoded ids do not have the text hash of the compilation"),
        (lambda row: row["chosen_messages"].append(9), "2 trained messages, 1 runs of trained tokens"),
        (same, "both sides are the same"),
    ],
)
def test_a_changed_pair_is_told_from_itself(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    compiled(tmp_path, PAIR)
    rewrite(tmp_path / "out", change)
    problems = dlgc.verify(tmp_path / "out").problems
    assert any(message in problem["message"] for problem in problems), problems


def test_what_only_the_source_can_tell_is_told_by_it(tmp_path: Path) -> None:
    compiled(tmp_path, PAIR)
    rewrite(tmp_path / "out", swap)
    assert dlgc.verify(tmp_path / "out").problems == []
    verdict = dlgc.verify(tmp_path / "out", source=tmp_path / "raw.jsonl")
    assert verdict.confirmation is not None
    assert ["token" in problem["message"] for problem in verdict.confirmation.problems] == [True]
    compiled(tmp_path, PAIR)
    rewrite(tmp_path / "out", lambda row: row.update(negative="short"))
    verdict = dlgc.verify(tmp_path / "out", source=tmp_path / "raw.jsonl")
    assert verdict.confirmation is not None
    assert "what is said of the answers" in verdict.confirmation.problems[0]["message"]


def test_rows_of_another_kind_than_the_manifest_says_are_no_dataset(tmp_path: Path) -> None:
    compiled(tmp_path, PAIR)
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["options"]["rows"] = "kto"
    path.write_text(json.dumps(manifest))
    messages = [problem["message"] for problem in dlgc.verify(tmp_path / "out").problems]
    assert "the columns are not those of `specs/shard.md`" in messages


def test_pairs_are_not_packed_again(tmp_path: Path) -> None:
    compiled(tmp_path, PAIR)
    with pytest.raises(dlgc.OptionsError, match="holds rows of `preference`, which are not packed"):
        dlgc.repack(tmp_path / "out", tmp_path / "packed", packing="bfd")
    assert not (tmp_path / "packed").exists()


# --- What people see ------------------------------------------------------------------------------------------------


def test_the_command_line_compiles_shows_counts_and_verifies(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.jsonl", PAIR, CALLS)
    done = run("compile", source, "-o", tmp_path / "out", "--rows", "preference")
    assert done.returncode == 0, done.stderr
    assert (
        "2 pairs with 6 targets, both sides after the same prompt, each the exact continuation of its inference "
        "prompt, ending in its stop token\n"
    ) in done.stderr
    assert "chosen is longer in 50.0 % of the pairs, shorter in 50.0 %" in done.stderr
    shown = run("show", f"{source}:1", "--rows", "preference").stdout
    assert shown.startswith(f"{source}:1: a prompt of ")
    assert "the same for both answers" in shown
    assert shown.count("▶") == 4  # it is explained with each answer
    head, chosen, rejected = shown.split("\nchosen: ")[0], *shown.split("\nchosen: ")[1].split("\nrejected: ")
    assert "[[" not in head
    assert chosen.rstrip().endswith("<|im_end|>]]")
    assert rejected.rstrip().endswith("<|im_end|>]]")
    judged = run("show", f"{write(tmp_path / 'kto.jsonl', JUDGED)}:1", "--rows", "kto").stdout
    assert "\ncompletion (bad): " in judged
    assert "▶" not in judged
    stats = run("stats", tmp_path / "out").stdout
    assert "chosen trained" in stats
    assert "chosen is longer in 50.0 %" in stats
    assert run("verify", tmp_path / "out", "--source", source).returncode == 0
    against = run("show", f"{source}:1", "--rows", "preference", "--against", "trl")
    assert (against.returncode, against.stderr.startswith("error: `--against` compares")) == (2, True)


def test_render_gives_a_row_for_each_answer() -> None:
    found = dlgc.render(PAIR, rows="preference")
    assert found.answers is not None
    assert (found.answers.names, found.answers.label) == (["chosen", "rejected"], None)
    prompts = {tuple(row.input_ids[: found.answers.prompt]) for row in found.rows}
    assert (len(found.rows), len(prompts)) == (2, 1)
    assert all(row.labels[: found.answers.prompt] == [IGNORED] * found.answers.prompt for row in found.rows)
    at = found.answers.prompt + (found.answers.divergence or 0)
    assert found.rows[0].input_ids[:at] == found.rows[1].input_ids[:at]
    assert found.rows[0].input_ids[at] != found.rows[1].input_ids[at]
    with pytest.raises(dlgc.RejectedError, match="no-preference"):
        dlgc.render({"messages": [user("Hi"), said("Hello")]}, rows="preference")


# --- Real sets ------------------------------------------------------------------------------------------------------

REAL = {
    "hh-rlhf/harmless-base.test.rows0-1499.jsonl.gz": ("preference", 1500, {}),
    "llamafactory/dpo_en_demo.json.gz": ("preference", 300, {}),
    "llamafactory/kto_en_demo.json.gz": ("kto", 300, {}),
    "oasst/en_100_tree.jsonl.gz": ("preference", 429, {}),
}
"""Path below shared/data: what its rows are, how many come of it, and the codes of what is refused."""


@pytest.mark.parametrize("name", REAL)
def test_real_preferences_compile(shared: Path, tmp_path: Path, name: str) -> None:
    kind, count, refused = REAL[name]
    report = dlgc.compile(shared / "data" / name, tmp_path / "out", rows=kind)
    assert (report.rows, codes(report)) == (count, refused)
    assert dlgc.verify(tmp_path / "out").problems == []
