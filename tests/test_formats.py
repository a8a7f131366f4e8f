"""Every format becomes the native one: a fixture each, and real sets beside their originals."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3

import dlgc
from dlgc import _dlgc
from dlgc.cli import main

if TYPE_CHECKING:
    from dlgc.options import Format

FIXTURES = Path(__file__).resolve().parent / "fixtures"
FORMATS = FIXTURES / "formats"
# No dialogue comes of them: a question that nobody answers, a schema.
WITHOUT_DIALOGUES = {"prompts": "no-assistant", "material": "not-a-dialogue"}

# What lies beside these is read with them, and is no dialogue by itself.
SAID = [("driver", "Where is the nearest garage?"), ("assistant", "Two miles from here."), ("driver", "Take me there.")]
SAID += [("assistant", "I set the way to it.")]

SOURCES = {"mt-bench": "mt-bench/answers.jsonl"}


def converted(
    source: Path, tmp_path: Path, *, to: Format = "native", preferences: bool = False, **options: object
) -> tuple[list[dict[str, Any]], dlgc.Report]:
    target = tmp_path / "converted.jsonl"
    report = dlgc.convert(source, target, to=to, preferences=preferences, overwrite=True, **options)
    return [json.loads(line) for line in (tmp_path / "converted.jsonl").read_text().splitlines()], report


@pytest.mark.parametrize("name", _dlgc.formats())
def test_a_format_becomes_what_is_written_down(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FORMATS)
    candidates = (SOURCES.get(name, name), f"{name}.jsonl", f"{name}.csv")
    source = next(path for path in map(Path, candidates) if path.exists())
    dialogues, report = converted(source, tmp_path, preferences=name == "preferences")

    assert name in report.formats
    if name in WITHOUT_DIALOGUES:
        assert not dialogues
        assert WITHOUT_DIALOGUES[name] in report.diagnostics
        return
    assert report.rejected == 0, report.diagnostics
    expected = FIXTURES / "imported" / f"{name}.jsonl"
    assert dialogues == [json.loads(line) for line in expected.read_text().splitlines()]
    again, _ = converted(tmp_path / "converted.jsonl", tmp_path, preferences=name == "preferences")
    assert again == dialogues, "what is native stays as it is"


@pytest.mark.parametrize("name", ["sgd", "oasst-tree", "sharegpt", "multiwoz"])
def test_rows_are_those_of_the_native_dialogues(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FORMATS)
    source = Path(name) if Path(name).is_dir() else Path(f"{name}.jsonl")
    converted(source, tmp_path)
    dlgc.compile(source, tmp_path / "raw")
    dlgc.compile(tmp_path / "converted.jsonl", tmp_path / "native")
    rows = [
        dlgc.scan(tmp_path / folder).select("input_ids", "labels", "dialogue_id").collect()
        for folder in ("raw", "native")
    ]
    assert rows[0].equals(rows[1])
    assert rows[0].height


@pytest.mark.parametrize("to", ["openai", "sharegpt"])
@pytest.mark.parametrize("name", ["sharegpt", "messages-legacy", "transcript", "alpaca", "xlam", "orca"])
def test_other_formats_say_the_same(to: Format, name: str, tmp_path: Path) -> None:
    source = FORMATS / f"{name}.jsonl"
    native, _ = converted(source, tmp_path)
    texts = [dlgc.render(dialogue).text for dialogue in native]
    there, _ = converted(source, tmp_path, to=to)
    assert [dlgc.render(dialogue).text for dialogue in there] == texts


def test_what_a_format_has_no_place_for_is_counted(tmp_path: Path) -> None:
    _, report = converted(FORMATS / "sgd", tmp_path, to="openai")
    (example,) = report.diagnostics["field-left-out"]["examples"]
    assert example["message"] == "the format has no place for `annotations`, `state`"


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(dlgc.OptionsError, match="is there already"):
        dlgc.convert(FORMATS / "orca.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(dlgc.OptionsError, match="is a folder"):
        dlgc.convert(FORMATS / "orca.jsonl", tmp_path)
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_standard_output_takes_the_dialogues(capfd: pytest.CaptureFixture[str]) -> None:
    dlgc.convert(FORMATS / "orca.jsonl", "-")
    assert json.loads(capfd.readouterr().out)["messages"][0] == {"role": "system", "content": "Think."}


# A user's own formats


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


TICKET = {
    "ticket": {
        "number": 7,
        "thread": [{"by": {"kind": "customer"}, "said": {"text": "It broke."}, "at": 1}],
        "sla": "gold",
    },
    "closed": True,
}


def test_a_users_format_is_a_few_lines(tmp_path: Path) -> None:
    answered = json.loads(json.dumps(TICKET))
    answered["ticket"]["thread"].append({"by": {"kind": "agent"}, "said": {"text": "We mend it."}, "at": 2})
    source = write(tmp_path / "raw.jsonl", answered)
    support = {
        "messages": "ticket.thread",
        "role": "by.kind",
        "roles": {"customer": "user", "agent": "assistant"},
        "content": "said.text",
        "record": {"id": "ticket.number"},
        "type": "task",
    }
    (dialogue,), report = converted(source, tmp_path, formats={"support": support})
    assert report.formats == {"support": 1}
    assert dialogue == {
        "id": "7",
        "type": "task",
        "messages": [
            {"role": "user", "content": "It broke.", "annotations": {"at": 1}},
            {"role": "assistant", "content": "We mend it.", "annotations": {"at": 2}},
        ],
        "metadata": {"ticket": {"sla": "gold"}, "closed": True},
    }


def test_columns_are_mapped_too(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.jsonl", {"frage": "Wer?", "antwort": "Ich.", "thema": "x"})
    faq = {"turns": [{"user": "frage"}, {"assistant": "antwort"}]}
    (dialogue,), _ = converted(source, tmp_path, formats={"faq": faq})
    assert [message["content"] for message in dialogue["messages"]] == ["Wer?", "Ich."]
    assert dialogue["metadata"] == {"thema": "x"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"messages": "a..b"}, "a key is missing in the path `a..b`"),
        ({}, "has `messages`, a path to a list, or `turns`"),
        ({"messages": "a", "turns": [{"user": "b"}], "content": "c"}, "neither `role` nor `content`"),
        ({"messages": "a", "roles": {"x": "boss"}, "role": "r"}, "`boss` is no role"),
        ({"messages": "a", "roles": {"x": "user"}}, "`role` must say where"),
        ({"messages": "a", "mesage": "b"}, "unknown field `mesage`"),
        ({"messages": "a", "record": {"ident": "b"}}, "`ident` is no field of a record"),
    ],
)
def test_a_format_that_is_not_well_written_is_refused(tmp_path: Path, written: dict[str, Any], said: str) -> None:
    source = write(tmp_path / "raw.jsonl", TICKET)
    with pytest.raises(dlgc.OptionsError, match="the format `mine`") as error:
        dlgc.check(source, formats={"mine": written})
    assert said in str(error.value)


def test_what_is_not_recognised_says_what_it_looks_like_and_how_to_map_it(tmp_path: Path) -> None:
    records = [{"thread": [{"k": 1, "txt": "It broke badly."}], "n": 1}, {"frage": "Wer?", "antwort": "Ich."}, {}]
    report = dlgc.check(write(tmp_path / "raw.jsonl", *records))
    first, second, third = report.diagnostics["unknown-format"]["examples"]
    assert first["message"] == "the record has no known shape: an object with `thread`, `n`"
    assert '[formats.NAME]\nmessages = "thread"\ncontent = "txt"' in first["help"]
    assert "if one of `frage`, `antwort` is the answer" in second["help"]
    assert "an empty object" in third["message"]


# Preferences


def test_preferences_of_all_kinds_are_told_and_not_trained() -> None:
    report = dlgc.check(FORMATS / "preferences.jsonl")
    assert report.rejected == report.ledger["records"]["read"] == report.diagnostics["preference-record"]["count"]
    assert "`--rows preference` compiles pairs" in report.diagnostics["preference-record"]["examples"][0]["help"]


def test_native_fields_of_preferences_stay_native(tmp_path: Path) -> None:
    native = {
        "documents": [{"text": "Nine."}],
        "chat_template_kwargs": {"enable_thinking": False},
        "split": "test",
        "type": "task",
        "negative": "verbose",
    }
    said = {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}
    asked = [{"role": "user", "content": "Hi"}]
    whole = {side: [*asked, *answer] for side, answer in said.items()}
    records = [{"messages": asked, **said, **native}, {**whole, **native}, {"prompt": "Hi", **said, **native}]
    records += [{"messages": asked, **said, "split": "train_prefs", "type": "harmless"}]
    dialogues, _ = converted(write(tmp_path / "raw.jsonl", *records), tmp_path, preferences=True)
    for dialogue in dialogues[:2]:
        assert all(dialogue[name] == native[name] for name in native if name != "negative")
        assert dialogue["metadata"] == {"negative": "verbose"}
    # Beside another name for what is asked they may be other things, as may values that the native shape has not.
    assert dialogues[2]["metadata"] == native
    assert dialogues[3]["metadata"] == {"split": "train_prefs", "type": "harmless"}
    again, _ = converted(tmp_path / "converted.jsonl", tmp_path, preferences=True)
    assert again == dialogues


def test_a_label_that_is_a_class_is_no_verdict(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    records = [{"messages": said, "label": "toxic"}, {"prompt": "Hi", "completion": "Hello", "label": "greeting"}]
    records += [{"instruction": "Hi", "output": "Hello", "label": 1}]
    dialogues, report = converted(write(tmp_path / "raw.jsonl", *records), tmp_path)
    assert [len(dialogue["messages"]) for dialogue in dialogues] == [2, 2, 2]
    assert report.diagnostics == {}


def test_a_set_without_preferences_says_so(tmp_path: Path) -> None:
    _, report = converted(FORMATS / "orca.jsonl", tmp_path, preferences=True)
    assert "1 record(s) hold no preferences" in (report.failure or "")


def test_preferences_without_pairs_are_told(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.jsonl", {"prompt": "Hi", "completions": ["Hel", "lo"], "labels": [True, False]})
    for preferences in (False, True):
        _, report = converted(source, tmp_path, preferences=preferences)
        assert list(report.diagnostics) == ["preference-record"]


def test_exchanges_and_rules_are_mapped(tmp_path: Path) -> None:
    turn = {"guest": {"says": "A room?"}, "desk": {"says": "For when?"}, "n": 1}
    source = write(
        tmp_path / "raw.jsonl", {"visit": {"talk": [turn, {"guest": {"says": "Now."}}]}, "rules": "Be kind."}
    )
    stay = {
        "messages": "visit.talk",
        "turns": [{"user": "guest.says"}, {"assistant": "desk.says"}],
        "record": {"system": "rules"},
    }
    (dialogue,), report = converted(source, tmp_path, formats={"stay": stay})
    said = [(message["role"], message["content"]) for message in dialogue["messages"]]
    assert said == [("system", "Be kind."), ("user", "A room?"), ("assistant", "For when?"), ("user", "Now.")]
    assert dialogue["messages"][2]["annotations"] == {"n": 1}
    assert "trailing-context" in report.diagnostics


def test_the_suggested_mapping_works_as_it_stands(tmp_path: Path) -> None:
    turns = [{"turn": who, "data": {"utterance": said, "end": False}} for who, said in SAID]
    source = write(tmp_path / "raw.jsonl", {"dialogue": turns, "scenario": {"id": 7}})
    (example,) = dlgc.check(source).diagnostics["unknown-format"]["examples"]
    mapping = tomllib.loads(example["help"].partition("\n")[2])["formats"]["NAME"]
    (dialogue,), report = converted(source, tmp_path, formats={"car": mapping})
    assert [(message["role"], message["content"]) for message in dialogue["messages"]] == [
        ({"driver": "user"}.get(who, "assistant"), said) for who, said in SAID
    ]
    assert "roles-assumed" not in report.diagnostics


def test_the_record_that_is_suggested_for_a_chat_works_as_it_stands(tmp_path: Path) -> None:
    report = dlgc.check(FIXTURES / "texts" / "chat-android.txt")
    (example,) = report.diagnostics["plain-text"]["examples"]
    assert report.ledger["faults"] == 1
    _, by_role, _, by_name = example["help"].splitlines()
    for record, formats in ((by_role, {"messages": 1}), (by_name, {"speakers": 1})):
        source = tmp_path / "written.jsonl"
        source.write_text(record.replace("…", "Good day"))
        (dialogue,), report = converted(source, tmp_path, assistant="Bob Miller")
        assert report.formats == formats
        assert [message["role"] for message in dialogue["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("field", ["images", "audios", "videos"])
def test_what_is_no_text_is_refused(tmp_path: Path, field: str) -> None:
    asked = {"instruction": "What is this?", "output": "A cat.", field: ["cat"]}
    report = dlgc.check(write(tmp_path / "raw.jsonl", asked, asked | {field: []}))
    assert report.diagnostics["unsupported-content"]["count"] == 1
    assert report.ledger["records"] == {"read": 2, "imported": 1, "excluded": 0, "rejected": 1}


def test_calls_are_held_against_the_tools(tmp_path: Path) -> None:
    def record(name: str, arguments: object) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"city": {}, "days": {}}, "required": ["city"]}
        tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
        call = {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        return {"messages": [{"role": "user", "content": "?"}, call], "tools": tools}

    fits = [record("weather", {"city": "Ulm"}), record("weather", '{"city": "Ulm", "days": 2}')]
    not_ = [record("time", {}), record("weather", {"town": "Ulm", "city": "U"}), record("weather", '{"days": 2}')]
    found = dlgc.check(write(tmp_path / "raw.jsonl", *fits, *not_)).diagnostics["undeclared-call"]
    assert [example["message"] for example in found["examples"]] == [
        "`time` is called, and no tool has this name",
        "`weather` has no parameter `town`",
        "`weather` requires `city`, which the call leaves out",
    ]


def test_files_beside_the_inputs_stand_in_the_manifest(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(FORMATS / "api-bank", raw)
    dlgc.compile(raw / "dialogue.jsonl", tmp_path / "shards")
    (sibling,) = json.loads((tmp_path / "shards" / "manifest.json").read_text())["siblings"]
    assert sibling["file"] == str(raw / "all_apis.csv")
    assert sibling["blake3"] == blake3((raw / "all_apis.csv").read_bytes()).hexdigest()

    moved = raw.rename(tmp_path / "moved")
    same = dlgc.verify(tmp_path / "shards", source=moved / "dialogue.jsonl").confirmation
    assert same is not None
    assert same.confirmed, same.problems
    (moved / "all_apis.csv").write_text((moved / "all_apis.csv").read_text().replace("Gets a", "Gets any"))
    other = dlgc.verify(tmp_path / "shards", source=moved / "dialogue.jsonl").confirmation
    assert other is not None
    assert not other.confirmed
    assert any("all_apis.csv" in problem and "has changed" in problem for problem in map(str, other.problems))


@pytest.mark.parametrize("name", ["crosswoz", "ui_parts"])
def test_the_example_of_an_importer_is_the_importer(name: str) -> None:
    root = FIXTURES.parent.parent
    shown = re.findall(r"```rust\n(pub\(super\) const FORMAT.*?)```", (root / "CONTRIBUTING.md").read_text(), re.DOTALL)
    source = (root / "rust" / "dlgc" / "src" / "import" / "formats" / f"{name}.rs").read_text()

    def bare(code: str) -> list[str]:
        return [re.sub(r"\s*//.*", "", line).rstrip() for line in code.strip().splitlines()]

    assert bare(source[source.index("pub(super) const FORMAT") :]) in map(bare, shown)
    assert len(source.splitlines()) < 40


# Speakers


def speakers(*names: str) -> dict[str, Any]:
    return {"id": "d", "content": [{"agent": name, "message": f"{number}"} for number, name in enumerate(names)]}


def test_the_assistant_is_who_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.jsonl", speakers("Mia", "Leo", "Mia", "Leo"))

    def roles(**options: object) -> list[list[str]]:
        return [
            [message["role"] for message in dialogue["messages"]]
            for dialogue in converted(source, tmp_path, **options)[0]
        ]

    assert roles() == [["user", "assistant"] * 2]
    assert roles(assistant="Mia") == [["assistant", "user"] * 2]
    assert roles(assistant="both") == [["user", "assistant"] * 2, ["assistant", "user"] * 2]


def test_three_speakers_are_refused(tmp_path: Path) -> None:
    report = dlgc.check(write(tmp_path / "raw.jsonl", speakers("Mia", "Leo", "Ann")))
    assert report.diagnostics["too-many-speakers"]["examples"][0]["label"] == "`Mia`, `Leo`, `Ann`"


def test_keys_of_any_letters_are_keys(tmp_path: Path) -> None:
    lines = [{"speaker": "Mia", "text": "Hi"}, {"speaker": "Leo", "text": "Hello"}]
    (dialogue,), report = converted(write(tmp_path / "raw.jsonl", {'li"nes.[0]': lines}), tmp_path)
    assert report.formats == {"speakers": 1}
    assert [message["content"] for message in dialogue["messages"]] == ["Hi", "Hello"]


# Filters and splits


def chats(count: int, **fields: object) -> list[dict[str, Any]]:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good day"}]
    return [{"id": f"d{number}", "messages": said, "reward": number % 2, **fields} for number in range(count)]


def test_a_filter_excludes_and_counts(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.jsonl", *chats(5))
    report = dlgc.compile(source, tmp_path / "out", where="reward = 1")
    assert report.ledger["records"] == {"read": 5, "imported": 2, "excluded": 3, "rejected": 0}
    assert dlgc.scan_dialogues(tmp_path / "out").collect()["id"].to_list() == ["d1", "d3"]
    assert dlgc.verify(tmp_path / "out", source=source).sound
    nothing = dlgc.check(source, where="rewrad = 1")
    assert nothing.failure == "nothing was compiled: 5 record(s) do not meet `rewrad = 1`; are the names right?"
    with pytest.raises(dlgc.OptionsError, match="such as `reward = 1"):
        dlgc.check(source, where="reward ==")


def test_of_a_tree_the_dialogues_that_are_kept_are_imported() -> None:
    report = dlgc.check(FORMATS / "oasst-tree.jsonl", where="NOT deleted")
    assert report.ledger["dialogues"] == {"imported": 3, "excluded": 1, "compiled": 2, "rejected": 0}


def split_of(folder: Path) -> dict[str, str]:
    rows = dlgc.scan_dialogues(folder).select("id", "split").collect()
    return dict(rows.iter_rows())


def test_splits_are_stable_when_data_is_added(tmp_path: Path) -> None:
    shares = {"validation": 0.2, "test": 0.1}
    dlgc.compile(write(tmp_path / "a.jsonl", *chats(200)), tmp_path / "small", split=shares)
    dlgc.compile(write(tmp_path / "b.jsonl", *reversed(chats(400))), tmp_path / "large", split=shares)
    small, large = split_of(tmp_path / "small"), split_of(tmp_path / "large")
    assert small.items() <= large.items()
    counts = [list(large.values()).count(name) for name in ("train", "validation", "test")]
    assert counts[0] + counts[1] + counts[2] == 400
    assert 55 < counts[1] < 105
    assert 20 < counts[2] < 60
    assert dlgc.scan(tmp_path / "large", split="test").collect().height == counts[2]


def test_a_record_without_an_id_is_told_by_its_content(tmp_path: Path) -> None:
    nameless = [
        {key: value for key, value in chat.items() if key != "id"} | {"n": n} for n, chat in enumerate(chats(60))
    ]
    shares = {"validation": 0.5}
    dlgc.compile(write(tmp_path / "a.jsonl", *nameless), tmp_path / "first", split=shares)
    dlgc.compile(write(tmp_path / "b.jsonl", *reversed(nameless)), tmp_path / "second", split=shares)

    def by_content(folder: Path) -> dict[str, str]:
        return dict(dlgc.scan_dialogues(folder).select("metadata", "split").collect().iter_rows())

    assert by_content(tmp_path / "first") == by_content(tmp_path / "second")
    assert set(by_content(tmp_path / "first").values()) == {"train", "validation"}


def test_a_group_is_never_torn_and_a_record_may_choose(tmp_path: Path) -> None:
    records = [chat | {"group": f"g{number // 4}"} for number, chat in enumerate(chats(80))]
    records += [chats(1)[0] | {"id": "mine", "split": "test"}]
    dlgc.compile(write(tmp_path / "a.jsonl", *records), tmp_path / "out", split={"validation": 0.5})
    found = dlgc.scan_dialogues(tmp_path / "out").collect()
    assert split_of(tmp_path / "out")["mine"] == "test"
    groups = [set(rows["split"]) for _, rows in found.filter(found["group"].is_not_null()).group_by("group")]
    assert all(len(splits) == 1 for splits in groups)
    assert {"train"} in groups
    assert {"validation"} in groups


def test_folds_are_in_rows_and_dialogues(tmp_path: Path) -> None:
    dlgc.compile(write(tmp_path / "a.jsonl", *chats(100)), tmp_path / "out", folds=4)
    folds = dlgc.scan_dialogues(tmp_path / "out").collect()["fold"]
    assert sorted(folds.unique()) == [0, 1, 2, 3]
    assert min(folds.value_counts()["count"]) > 12
    assert dlgc.scan(tmp_path / "out").collect()["fold"].explode().to_list() == folds.to_list()
    dlgc.compile(tmp_path / "a.jsonl", tmp_path / "none")
    assert set(dlgc.scan_dialogues(tmp_path / "none").collect()["fold"]) == {-1}
    with pytest.raises(dlgc.OptionsError, match="one fold is no cross-validation"):
        dlgc.check(tmp_path / "a.jsonl", folds=1)


def test_strata_have_their_share_of_each_split(tmp_path: Path) -> None:
    domains = ["taxi"] * 10 + ["train"] * 200 + ["hotel"] * 30
    records = [chat | {"domain": domain} for chat, domain in zip(chats(240), domains, strict=True)]
    options: dict[str, Any] = {"split": {"validation": 0.1}, "stratify": "domain"}
    dlgc.compile(write(tmp_path / "a.jsonl", *records), tmp_path / "out", threads=3, **options)
    found = split_of(tmp_path / "out")
    held = [domains[int(name[1:])] for name, split in found.items() if split == "validation"]
    assert all(abs(held.count(domain) - domains.count(domain) / 10) <= 1.5 for domain in set(domains))
    assert set(held) == {"taxi", "train", "hotel"}
    assert dlgc.verify(tmp_path / "out", source=tmp_path / "a.jsonl").sound
    dlgc.compile(write(tmp_path / "b.jsonl", *records, *(chats(9, domain="taxi"))), tmp_path / "more", **options)
    more = split_of(tmp_path / "more")
    assert all(more[name] == split for name, split in list(found.items())[9:]), "what is added behind moves nothing"


def test_coverage_says_what_is_rare_and_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [{"role": "user", "content": "A taxi."}, {"role": "assistant", "content": "Where to?"}]
    records = [
        {"messages": [*said[:1], said[1] | {"state": {"intent": intent, "slots": {"taxi-to": "x"}}}]}
        for intent in ["find_taxi"] * 5 + ["cancel"] * 2
    ]
    dlgc.compile(write(tmp_path / "a.jsonl", *records, *chats(3)), tmp_path / "out")
    assert main(["stats", str(tmp_path / "out"), "--rare", "4"]) == 0
    screen = capsys.readouterr().out
    assert "check: 10 dialogues; multi-turn behaviour is learnt well from 10,000 to 50,000" in screen
    assert "check: 0 dialogues (0 %) have 3 to 8 assistant turns, 10 have fewer, 0 more" in screen
    assert "check: 1 intents have fewer than 4 dialogues: `cancel` 2" in screen
    assert "taxi-to" in screen
    assert "Latn" not in screen, "one script is no table"


# Real sets, beside their originals


def elements(path: Path) -> list[Any]:
    found: list[Any] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_spans_of_sgd_are_still_exact(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "sgd"
    dialogues, report = converted(folder, tmp_path)
    assert report.ledger["records"] == {"read": 1011, "imported": 985, "excluded": 26, "rejected": 0}
    originals = {turn["dialogue_id"]: turn for path in sorted(folder.glob("*.gz")) for turn in elements(path)}
    spans = calls = 0
    for dialogue in dialogues:
        original = originals[dialogue["id"]]
        said = [message for message in dialogue["messages"] if "frames" in message.get("annotations", {})]
        assert [message["content"] for message in said] == [turn["utterance"] for turn in original["turns"]]
        for message, turn in zip(said, original["turns"], strict=True):
            assert message["annotations"]["frames"] == turn["frames"]
            for frame in turn["frames"]:
                for slot in frame["slots"]:
                    text = message["content"][slot["start"] : slot["exclusive_end"]]
                    wanted = [
                        value
                        for action in frame["actions"]
                        if action["slot"] == slot["slot"]
                        for value in action["values"]
                    ]
                    assert text in wanted
                    spans += 1
        asked = [
            (frame["service_call"], frame["service_results"])
            for turn in original["turns"]
            for frame in turn["frames"]
            if "service_call" in frame
        ]
        made = [call["function"] for message in dialogue["messages"] for call in message.get("tool_calls", [])]
        results = [json.loads(message["content"]) for message in dialogue["messages"] if message["role"] == "tool"]
        assert made == [{"name": call["method"], "arguments": call["parameters"]} for call, _ in asked]
        assert results == [result for _, result in asked]
        assert {call["name"] for call in made} <= {tool["function"]["name"] for tool in dialogue["tools"]}
        calls += len(made)
    assert spans == 10_589
    assert calls > 1000


def test_the_state_of_sgd_is_what_the_user_last_said(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "sgd" / "train_dialogues_065.json.gz"
    dialogues, _ = converted(path, tmp_path)
    for dialogue, original in zip(dialogues, elements(path), strict=True):
        states: dict[str, dict[str, Any]] = {}
        answers = iter(
            [message for message in dialogue["messages"] if message["role"] == "assistant" and "annotations" in message]
        )
        for turn in original["turns"]:
            if turn["speaker"] == "USER":
                states |= {frame["service"]: frame["state"] for frame in turn["frames"]}
                continue
            expected = {
                f"{service}-{slot}": values[0]
                for service, state in states.items()
                for slot, values in state["slot_values"].items()
            }
            assert next(answers)["state"]["slots"] == expected


@pytest.mark.parametrize("name", ["multiwoz21/val.json.zip", "multiwoz-zh/human_val.json.zip"])
def test_state_and_goal_of_multiwoz(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "data" / name
    with zipfile.ZipFile(path) as archive:
        originals = json.loads(archive.read(archive.namelist()[0]))
    dialogues, _ = converted(path, tmp_path)
    assert [dialogue["id"] for dialogue in dialogues] == list(originals)
    for dialogue in dialogues:
        original = originals[dialogue["id"]]
        assert dialogue.get("goal") == original.get("goal")
        for message, turn in zip(dialogue["messages"], original["log"], strict=True):
            assert message["content"] == turn["text"]
            assert message["annotations"]["dialog_act"] == turn["dialog_act"]
            if message["role"] == "user":
                continue
            flat = {
                f"{domain}-book-{slot}" if part == "book" else f"{domain}-{slot}": value
                for domain, state in turn["metadata"].items()
                for part in ("book", "semi")
                for slot, value in state[part].items()
                if slot != "booked" and value not in ("", "not mentioned", "未提及", "none", [])
            }
            assert message["state"]["slots"] == flat


def test_calls_of_api_bank(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "api-bank"
    dialogues, report = converted(folder, tmp_path)
    assert report.diagnostics["empty-file"]["count"] == 1
    with tarfile.open(folder / "level-1-given-desc.tar.gz") as archive:
        members = [archive.extractfile(member) for member in archive.getmembers() if member.isfile()]
        files = [io.TextIOWrapper(member, "utf-8").read().splitlines() for member in members if member]
    originals = [[json.loads(line) for line in said if line.strip()] for said in files if said]
    assert len(dialogues) == len(originals) == 213
    for dialogue, turns in zip(dialogues, originals, strict=True):
        calls = [call["function"] for message in dialogue["messages"] for call in message.get("tool_calls", [])]
        asked = [turn for turn in turns if turn["role"] == "API"]
        assert calls == [{"name": turn["api_name"], "arguments": turn["param_dict"]} for turn in asked]
        assert {tool["function"]["name"] for tool in dialogue.get("tools", [])} <= {turn["api_name"] for turn in asked}


def test_calls_and_answers_of_bfcl(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "bfcl"
    dialogues, _ = converted(folder / "BFCL_v4_simple_python.json.gz", tmp_path)
    truth = lines(folder / "possible_answer" / "BFCL_v4_simple_python.json")
    assert len(dialogues) == len(truth) == 400
    for dialogue, answer in zip(dialogues, truth, strict=True):
        (call,) = dialogue["messages"][-1]["tool_calls"]
        ((name, allowed),) = answer["ground_truth"][0].items()
        assert call["function"]["name"] == name
        for argument, value in call["function"]["arguments"].items():
            assert value in allowed[argument] or isinstance(value, dict | list)
        for left_out in allowed.keys() - call["function"]["arguments"].keys():
            assert "" in allowed[left_out]
        assert dialogue["messages"][-1]["expect"] == "call"
        assert '"dict"' not in json.dumps(dialogue["tools"])


def test_python_calls_of_bfcl_are_read(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "bfcl"
    dialogues, _ = converted(folder / "BFCL_v4_multi_turn_base.json.gz", tmp_path)
    truth = lines(folder / "possible_answer" / "BFCL_v4_multi_turn_base.json")
    written = sum(len(turn) for answer in truth for turn in answer["ground_truth"])
    read = sum(len(message.get("tool_calls", [])) for dialogue in dialogues for message in dialogue["messages"])
    assert read == written


def test_rewards_of_tau_bench(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "tau-bench" / "gpt-4o-airline.trials01.json.gz"
    dialogues, report = converted(path, tmp_path, where="reward = 1")
    assert report.ledger["records"] == {"read": 100, "imported": 43, "excluded": 57, "rejected": 0}
    solved = [item for item in elements(path) if item["reward"] == 1]
    assert [dialogue["goal"] for dialogue in dialogues] == [item["info"]["task"] for item in solved]


def test_trees_of_open_assistant(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "oasst" / "en_100_tree.jsonl.gz"
    trees = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    dialogues, _ = converted(path, tmp_path)

    def messages(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node] + [found for reply in node["replies"] for found in messages(reply)]

    answers = [node["text"] for tree in trees for node in messages(tree["prompt"]) if node["role"] == "assistant"]
    trained = [
        message["content"]
        for dialogue in dialogues
        for message in dialogue["messages"]
        if message["role"] == "assistant" and message.get("train", True)
    ]
    assert sorted(trained) == sorted(answers), "every answer is trained, and once"
    pairs, _ = converted(path, tmp_path, preferences=True)
    assert all(pair["chosen"][0]["annotations"]["rank"] < pair["rejected"][0]["annotations"]["rank"] for pair in pairs)
    assert len(pairs) > 300


def test_preferences_of_hh_rlhf(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "hh-rlhf" / "harmless-base.test.rows0-1499.jsonl.gz"
    originals = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    pairs, report = converted(path, tmp_path, preferences=True)
    assert len(pairs) == 1500
    assert report.diagnostics["empty-turn"]["count"] == 4

    def transcript(messages: list[dict[str, Any]]) -> str:
        names = {"user": "Human", "assistant": "Assistant"}
        return "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in messages)

    def plain(text: str) -> list[str]:
        return text.split()

    for pair, original in zip(pairs, originals, strict=True):
        for side in ("chosen", "rejected"):
            assert plain(transcript(pair["messages"] + pair[side])) == plain(original[side])
        assert pair["chosen"] != pair["rejected"]
