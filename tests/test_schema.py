"""The contracts in `specs/`: the core keeps to them, and the generated ones are up to date."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SPECS = ROOT / "specs"
VALID = sorted((ROOT / "tests" / "fixtures" / "dialogues" / "valid").glob("*.jsonl"))
INVALID = sorted((ROOT / "tests" / "fixtures" / "dialogues" / "invalid").glob("*.jsonl"))

# Fixtures of formats that importers bring into the native shape, which is the one that the schema describes.
IMPORTED = {"conversations": "messages", "sharegpt": "sharegpt", "traj": "trajectory"}

# Codes of the shape: a record has one of them if and only if the schema refuses it. `invalid-tool-call` is about the
# shape here, because the built-in template prints every call that has it.
SHAPE = {
    "empty-dialogue",
    "invalid-tool-call",
    "unknown-format",
    "unknown-role",
    "unsupported-content",
    "unsupported-weight",
    "wrong-type",
}

# Options without which a fixture would have to be large.
NEEDED_OPTIONS: dict[str, dict[str, object]] = {
    "dialogue-too-long": {"max_length": 16, "window": "reject"},
    "head-too-long": {"max_length": 24},
    "turn-too-long": {"max_length": 16},
    "record-too-large": {"max_record_bytes": 1024},
}

# Errors without a fixture, and why.
LEFT_OUT = {
    "answer-not-nested": "about preferences: see test_preferences.py",
    "broken-array": "about a file, not a record",
    "broken-container": "about a file, not a record",
    "file-changed": "about a file, not a record",
    "identical-answers": "about preferences: see test_preferences.py",
    "no-preference": "about preferences: see test_preferences.py",
    "field-lost": "depends on the template; the built-in one prints every field",
    "internal-error": "a bug",
    "no-stop-token": "depends on the template; the built-in one closes every turn",
    "plain-text": "about a file, not a record",
    "target-unproved": "depends on the template; the built-in one prints what is said as it is",
    "template-limit": "depends on the template; the built-in one does no more work than there is input",
    "template-refused": "depends on the template",
    "truncated-gzip": "about a file, not a record",
    "unreadable-file": "about a file, not a record",
    "unsupported-container": "about a file, not a record",
    "wrong-columns": "about a row of a table: see test_containers.py",
}


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SPECS / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return schema


def embedded_json(
    validator: Draft202012Validator, schema: dict[str, Any], text: object, _: object
) -> Iterator[ValidationError]:
    """Lets `contentSchema` decide, which JSON Schema leaves to the application."""
    if isinstance(text, str):
        try:
            yield from validator.descend(json.loads(text), schema, schema_path="contentSchema")
        except json.JSONDecodeError as error:
            yield ValidationError(f"{text!r} is not JSON: {error}")


DIALOGUE = extend(Draft202012Validator, {"contentSchema": embedded_json})(load("dialogue.schema.json"))
RENDERER = _dlgc.Renderer(dlgc.CompileOptions().to_json())


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def findings(record: object) -> dict[str, str]:
    """Returns severities by code."""
    found = json.loads(RENDERER.render(json.dumps(record, ensure_ascii=False).encode()))
    return {diagnostic["code"]: diagnostic["severity"] for diagnostic in found["diagnostics"]}


def is_native(record: object) -> bool:
    """Whether it has the native shape, or none that is known: of other formats the schema says nothing."""
    return json.loads(RENDERER.render(json.dumps(record, ensure_ascii=False).encode()))["format"] in (None, "messages")


def errors(record: object) -> set[str]:
    return {code for code, severity in findings(record).items() if severity == "error"}


def catalogue() -> dict[str, str]:
    """Returns the severity of each code."""
    return dict(re.findall(r"^\| \[`(.+?)`\]\(.+?\) \| (.+?) \|", _dlgc.explain(None) or "", flags=re.MULTILINE))


def stem(path: Path) -> str:
    return path.stem


# Fixtures


@pytest.mark.parametrize("path", VALID, ids=stem)
def test_a_valid_fixture_is_compiled_whole(path: Path) -> None:
    report = dlgc.check(path)

    assert report.rejected == 0, report.diagnostics
    assert report.formats == {IMPORTED.get(path.stem, "messages"): len(records(path))}
    assert not [code for code, tally in report.diagnostics.items() if tally["severity"] == "error"]


@pytest.mark.parametrize("path", [path for path in VALID if path.stem not in IMPORTED], ids=stem)
def test_a_valid_fixture_of_the_native_shape_passes_the_schema(path: Path) -> None:
    for record in records(path):
        DIALOGUE.validate(record)


@pytest.mark.parametrize("path", INVALID, ids=stem)
def test_every_record_of_an_invalid_fixture_has_its_code_and_no_other_error(path: Path, tmp_path: Path) -> None:
    report = dlgc.compile(path, tmp_path / "shards", **NEEDED_OPTIONS.get(path.stem, {}))
    rejects = records(tmp_path / "shards" / "rejects" / "index.jsonl")

    assert rejects
    assert report.rejected == len(rejects) == report.ledger["records"]["read"]
    assert report.ledger["faults"] == 0
    for reject in rejects:
        assert {diagnostic["code"] for diagnostic in reject["diagnostics"]} == {path.stem}


@pytest.mark.parametrize("path", [path for path in INVALID if path.stem in SHAPE], ids=stem)
def test_the_schema_refuses_the_fixtures_of_shape_codes(path: Path) -> None:
    native = [record for record in records(path) if not (isinstance(record, dict) and "conversations" in record)]

    assert native
    assert not [record for record in native if DIALOGUE.is_valid(record)]


def test_every_error_has_an_invalid_fixture_or_a_reason_to_have_none() -> None:
    every_error = {code for code, severity in catalogue().items() if severity == "error"}

    assert {path.stem for path in INVALID} | set(LEFT_OUT) == every_error
    assert not {path.stem for path in INVALID} & set(LEFT_OUT)


# The law: the verdict of the core equals the schema's.

# Records that the law begins with: everything that the valid fixtures have.
BASES = [record for path in VALID if path.stem not in IMPORTED for record in records(path)]
# Names of fields, by what has them, and some that no field has. `chosen`, `rejected`, `label`, `conversations` and
# `traj` are missing: they make a record one of another format, about which the schema of the native shape says nothing.
RECORD_NAMES = list(DIALOGUE.schema["properties"])
MESSAGE_NAMES = list(DIALOGUE.schema["$defs"]["message"]["properties"])
OTHER_NAMES = ["arguments", "function", "id", "name", "text", "type", "upto", "value", "extra"]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 0.0, 1.0, 0.5, 1e300, 10**30, "", " ", "0", "text", "null", "[]", "{}", "[{}]"),
    *('[{"name": "ring"}, 7]', "image_url", "system", "user", "assistant", "tool", "bot", "chat", "train", "clarify"),
    *([], [None], [0], [""], ["text"], [{}], [[]], {}, {"extra": None}, {"type": "text", "text": "part"}),
    *({"type": "image_url", "text": "part"}, {"text": None}, {"name": "ring"}, {"name": "ring", "arguments": "{}"}),
    *({"function": {"name": "ring", "arguments": {"times": 2}}}, {"function": {"arguments": {}}}, {"name": ""}),
    *({"upto": 0, "text": "summary"}, [{"upto": 1, "text": "summary"}], [{"upto": -1, "text": "summary"}]),
    *([{"name": "ring"}], [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]),
]
values = st.sampled_from(VALUES).map(copy.deepcopy)


def places(node: object, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yields every container with each of its keys or indices, down to the arguments of calls."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield node, key
        if depth < 6:
            yield from places(value, depth + 1)


def name_for(container: dict[str, Any], draw: st.DrawFn) -> str:
    """Draws a name that the container may know, sometimes one that it does not."""
    fitting = MESSAGE_NAMES if "role" in container else RECORD_NAMES if "conversation" in container else OTHER_NAMES
    return draw(st.sampled_from(fitting) | st.sampled_from(MESSAGE_NAMES + RECORD_NAMES + OTHER_NAMES))


def drop(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401  # any JSON, here and below
    del draw
    del container[key]


def replace(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401
    container[key] = draw(values)


def add(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401
    if isinstance(container, dict):
        container[name_for(container, draw)] = draw(values)
    else:
        container.insert(key, draw(values))


def rename(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401
    if isinstance(container, dict):
        container[name_for(container, draw)] = container.pop(key)


def repeat(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401
    if isinstance(container, dict):
        container[name_for(container, draw)] = copy.deepcopy(container[key])
    else:
        container.insert(key, copy.deepcopy(container[key]))


def wrap(container: Any, key: Any, draw: st.DrawFn) -> None:  # noqa: ANN401
    container[key] = draw(st.sampled_from([[container[key]], {"text": container[key]}, json.dumps(container[key])]))


MUTATIONS: list[Callable[[Any, Any, st.DrawFn], None]] = [drop, replace, add, rename, repeat, wrap]


@st.composite
def mutated(draw: st.DrawFn) -> Any:  # noqa: ANN401
    """A valid record with up to four things changed, most of them inside the messages."""
    record = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(0, 4))):
        found = list(places(record))
        inner = [(container, key) for container, key in found if container is not record]
        if found:
            container, key = draw(st.sampled_from(inner or found) | st.sampled_from(found))
            draw(st.sampled_from(MUTATIONS))(container, key, draw)
    return record


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_the_verdict_of_the_core_equals_the_schemas(record: object) -> None:
    assume(is_native(record))
    found = errors(record)

    assert bool(found & SHAPE) == (not DIALOGUE.is_valid(record)), sorted(found)


ASK, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
CALL = {"name": "f", "arguments": {"x": 1}}
# Each object that has a shape of its own, with the names of its fields and the record around it.
OBJECTS: dict[str, tuple[dict[str, Any], list[str], Callable[[Any], Any]]] = {
    "record": ({"conversation": [ASK, ANSWER]}, RECORD_NAMES, lambda record: record),
    "openai-record": ({"messages": [ASK, ANSWER]}, RECORD_NAMES, lambda record: record),
    "question": (ASK, MESSAGE_NAMES, lambda message: {"messages": [message, ANSWER]}),
    "answer": (ANSWER, MESSAGE_NAMES, lambda message: {"messages": [ASK, message]}),
    "one-call": ({"role": "assistant", "tool_call": CALL}, MESSAGE_NAMES, lambda message: {"messages": [ASK, message]}),
    "calls": ({"role": "assistant", "tool_calls": [CALL]}, MESSAGE_NAMES, lambda message: {"messages": [ASK, message]}),
    "result": ({"role": "tool", "result": 1}, MESSAGE_NAMES, lambda message: {"messages": [ASK, message, ANSWER]}),
    "part": (
        {"type": "text", "text": "hi"},
        OTHER_NAMES,
        lambda part: {"messages": [ASK, ANSWER | {"content": [part]}]},
    ),
    "call": (CALL, OTHER_NAMES, lambda call: {"messages": [ASK, {"role": "assistant", "tool_call": call}]}),
    "openai-call": (
        {"id": "c1", "type": "function", "function": CALL},
        OTHER_NAMES,
        lambda call: {"messages": [ASK, {"role": "assistant", "tool_calls": [call]}]},
    ),
    "function": (
        CALL,
        OTHER_NAMES,
        lambda function: {"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": function}]}]},
    ),
    "summary": (
        {"upto": 0, "text": "hi"},
        OTHER_NAMES,
        lambda summary: {"messages": [ASK, ANSWER], "summaries": [summary]},
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_for_every_value_of_every_field_the_two_verdicts_are_equal(name: str) -> None:
    whole, names, record_of = OBJECTS[name]
    without = [{key: value for key, value in whole.items() if key != dropped} for dropped in whole]
    for changed in [whole, *without, *VALUES, *(whole | {key: value} for key in names for value in VALUES)]:
        record = record_of(changed)
        found = errors(record)

        if is_native(record):
            assert bool(found & SHAPE) == (not DIALOGUE.is_valid(record)), (changed, sorted(found))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(mutated(), st.sampled_from(["messages", "conversations", "traj"]))
def test_the_name_of_the_list_changes_no_verdict(record: dict[str, Any], name: str) -> None:
    assume("messages" not in record and isinstance(record.get("conversation"), list))
    renamed = {name if key == "conversation" else key: value for key, value in record.items()}

    assume("not-a-dialogue" not in findings(renamed))
    # `traj` is a list of messages only where the first one has a role; what else has that name, nobody knows.
    assume(name != "traj" or "unknown-format" not in findings(renamed))

    assert errors(renamed) == errors(record)


EDGES: dict[str, Any] = {
    "null": None,
    "number": 7,
    "text": "hi",
    "empty": {},
    "null-list": {"conversation": None},
    "two-null-lists": {"conversation": None, "messages": None},
    "empty-beside-full-list": {"conversation": [], "messages": [ASK, ANSWER]},
    "full-beside-null-list": {"conversation": [ASK, ANSWER], "messages": None},
    "empty-trajectory": {"traj": []},
    "first-without-role": {"messages": [{"content": "hi"}, ANSWER]},
    "list-of-lists": {"messages": [[ASK, ANSWER]]},
    "blank-tools": {"messages": [ASK, ANSWER], "tools": "\t\n"},
    "tools-of-other-json": {"messages": [ASK, ANSWER], "tools": "{}"},
    "upto-with-fraction": {"messages": [ASK, ANSWER], "summaries": [{"upto": 0.5, "text": "hi"}]},
    "upto-with-zero-fraction": {"messages": [ASK, ANSWER], "summaries": [{"upto": 1.0, "text": "hi"}]},
    "upto-true": {"messages": [ASK, ANSWER], "summaries": [{"upto": True, "text": "hi"}]},
    "part-with-text-and-value": {"messages": [ASK | {"content": [{"text": "hi", "value": "hi"}]}, ANSWER]},
    "part-with-value": {"messages": [ASK | {"content": [{"value": "hi"}]}, ANSWER]},
    "image-with-text": {"messages": [ASK | {"content": [{"type": "image_url", "text": "hi"}]}, ANSWER]},
    "weight-true": {"messages": [ASK, ANSWER | {"weight": True}]},
    "weights-as-floats": {"messages": [ASK, ANSWER | {"weight": -0.0, "loss_weight": 1.0}]},
    "call-beside-no-calls": {"messages": [ASK, ANSWER | {"tool_calls": [], "tool_call": {"name": "f"}}]},
    "call-beside-calls": {"messages": [ASK, ANSWER | {"tool_calls": [{"name": "f"}], "tool_call": {"name": "f"}}]},
    "name-beside-function": {"messages": [ASK, ANSWER | {"tool_call": {"name": 7, "function": {"name": "f"}}}]},
    "name-outside-function": {"messages": [ASK, ANSWER | {"tool_call": {"name": "f", "function": {}}}]},
    "result-beside-content": {"messages": [ASK, ANSWER, {"role": "tool", "content": "", "result": 1}]},
    "result-of-user": {"messages": [{"role": "user", "result": "hi"}, ANSWER]},
}


@pytest.mark.parametrize("name", EDGES)
def test_at_the_edges_of_the_shape_the_two_verdicts_are_equal(name: str) -> None:
    found = errors(EDGES[name])

    assert bool(found & SHAPE) == (not DIALOGUE.is_valid(EDGES[name])), sorted(found)


# Schemas and code


def properties_without_description(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (name for name, schema in node.get("properties", {}).items() if "description" not in schema)
        # Conditions speak of properties that are described where they are defined.
        node = [value for key, value in node.items() if key not in {"oneOf", "if", "then"}]
    for value in node if isinstance(node, list) else ():
        yield from properties_without_description(value)


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.schema.json")), ids=stem)
def test_every_property_has_a_description(path: Path) -> None:
    assert list(properties_without_description(load(path.name))) == []


def test_the_schema_of_dialogues_names_the_codes_of_the_shape_and_no_unknown_ones() -> None:
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", DIALOGUE.schema["description"]))

    assert named >= SHAPE
    assert named <= set(catalogue())


def test_the_schema_of_options_lists_the_options_with_their_defaults() -> None:
    schema = load("options.schema.json")
    options = json.loads(dlgc.CompileOptions().to_json())

    Draft202012Validator(schema).validate(options)
    assert set(schema["properties"]) == {field.name for field in fields(dlgc.CompileOptions)} | {"inputs", "output"}
    assert {name: option["default"] for name, option in schema["properties"].items()} == options


# JSON Schema knows no SQL: see test_formats.py.
@pytest.mark.parametrize(
    "name", [name for name in load("options.schema.json")["properties"] if name not in ("where", "stratify")]
)
def test_the_core_refuses_the_options_that_the_schema_refuses(name: str) -> None:
    validator = Draft202012Validator(load("options.schema.json"))
    pool = [*VALUES, "text,user=allow", "text,user", "exact", "all_assistant", "ignore", "none", "2026-02-28", "today"]
    # The core reads integers as they are written: `1.0` is none.
    for value in (value for value in pool if not isinstance(value, float) or not value.is_integer()):
        refused = False
        try:
            _dlgc.Renderer(json.dumps({name: value}))
        except dlgc.OptionsError:
            refused = True
        except (dlgc.TemplateError, dlgc.TokenizerError, OSError):
            pass  # the option is well-formed, what it names is not there
        assert refused == (not validator.is_valid({name: value})), value


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schema") / "shards"
    dlgc.compile([ROOT / "examples" / "dialogues", *VALID, *INVALID], folder, max_rejects=1.0)
    return folder


def test_a_manifest_passes_its_schema(shards: Path, tmp_path: Path) -> None:
    validator = Draft202012Validator(load("manifest.schema.json"))
    manifest = dlgc.manifest(shards)

    validator.validate(manifest)
    validator.validate(dlgc.compile(VALID[0], tmp_path / "shards", max_length="none").manifest)
    for name in manifest:
        assert not validator.is_valid({key: value for key, value in manifest.items() if key != name})
    assert not validator.is_valid(manifest | {"extra": None})


def test_the_columns_are_those_of_the_specification(shards: Path) -> None:
    sections = re.split(r"^## ", (SPECS / "shard.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for file, heading in [("train/data-00000.arrow", "Rows"), ("dialogues.arrow", "Dialogues")]:
        (section,) = [section for section in sections if section.startswith(heading)]
        with pa.memory_map(str(shards / file)) as source:
            schema = pa.ipc.open_stream(source).schema

        found = [(field.name, str(field.type).replace("item: ", "")) for field in schema]
        assert re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, flags=re.MULTILINE) == found


@pytest.mark.parametrize(("rows", "place"), [("preference", 0), ("kto", 1)])
def test_the_columns_of_preferences_are_those_of_the_specification(tmp_path: Path, rows: str, place: int) -> None:
    said = [{"role": "assistant", "content": text} for text in ("a", "b")]
    record = {"messages": [{"role": "user", "content": "?"}], "chosen": said[:1], "rejected": said[1:]}
    (tmp_path / "raw.jsonl").write_text(json.dumps(record))
    report = dlgc.compile(tmp_path / "raw.jsonl", tmp_path / "shards", rows=rows)
    Draft202012Validator(load("manifest.schema.json")).validate(report.manifest)
    with pa.memory_map(str(tmp_path / "shards" / "train" / "data-00000.arrow")) as source:
        schema = pa.ipc.open_stream(source).schema
    text = (SPECS / "shard.md").read_text(encoding="utf-8")
    line = re.compile(r"^\|(?: `(\w+)`)? \|(?: `(\w+)`)? \| `(\S+)` \|", flags=re.MULTILINE)
    (section,) = [part for part in text.split("\n## ") if part.startswith("Preference rows")]
    said_there = [(found[place], found[2]) for found in line.findall(section) if found[place]]
    assert said_there == [(field.name, str(field.type).replace("item: ", "")) for field in schema]


def test_the_reading_examples_of_the_specification_run(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (example,) = re.findall(r"```python\n(.+?)```", (SPECS / "shard.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}

    monkeypatch.chdir(shards.parent)
    exec(example, names)  # noqa: S102  # the project's own example

    assert names["table"].num_rows == dlgc.manifest(shards)["splits"]["train"]["rows"]


def test_the_diagnostics_page_is_up_to_date() -> None:
    assert (SPECS / "diagnostics.md").read_text(encoding="utf-8") == _dlgc.explain(None), "stale: run `make specs`"


def test_the_diagnostics_page_lists_codes_once() -> None:
    headings = re.findall(r"^## (.+)$", (SPECS / "diagnostics.md").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert headings == list(catalogue())
    assert all(left != right for left, right in pairwise(sorted(headings)))
