"""Verifying a dataset against what is to serve and against its sources: what differs is told, and where."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import tokenizers
from blake3 import blake3

import dlgc

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
BUILTIN = ROOT / "rust" / "dlgc" / "assets" / "builtin"


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlgc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def compiled(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "shards"
    dlgc.compile(examples / "guide.jsonl", folder)
    return folder


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A copy of the built-in tokenizer, to be changed."""
    return Path(shutil.copytree(BUILTIN, tmp_path / "served"))


def change(path: Path, edit: Callable[[Any], None]) -> None:
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found, ensure_ascii=False))


def differences(drift: dlgc.Drift) -> dict[str, dict[str, Any]]:
    return {canary["name"]: canary["difference"] for canary in drift.canaries if canary["difference"]}


def prompts(folder: Path, shards: Path) -> dict[str, str]:
    """What transformers renders for every canary but its last message, with the generation prompt."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = {}
    for canary in dlgc.manifest(shards)["canaries"]:
        record = json.loads(canary["record"])
        found[canary["name"]] = tokenizer.apply_chat_template(
            [{"content": "", **message} for message in record["messages"][:-1]],
            tools=record.get("tools"),
            documents=record.get("documents"),
            tokenize=False,
            add_generation_prompt=True,
            **record.get("chat_template_kwargs", {}),
        )
    return found


def ids(folder: Path, text: str) -> list[int]:
    encoded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False)
    return list(encoded.ids)


def parted(left: list[int], right: list[int]) -> int:
    return next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), len(left))


def test_the_manifest_has_the_prompts_that_transformers_would_send(compiled: Path) -> None:
    canaries = {canary["name"]: canary for canary in dlgc.manifest(compiled)["canaries"]}
    assert len(canaries) >= 14
    for name, text in prompts(compiled / "tokenizer", compiled).items():
        assert canaries[name]["prompt_ids"] == ids(compiled / "tokenizer", text), name


def test_real_templates_have_the_prompts_that_transformers_would_send(
    qwen3: Path, examples: Path, tmp_path: Path
) -> None:
    dlgc.compile(examples / "guide.jsonl", tmp_path / "shards", tokenizer=qwen3, max_length=16)
    for canary in dlgc.manifest(tmp_path / "shards")["canaries"]:
        assert canary["refused"] != "dialogue-too-long", "canaries are compiled however long they are"
        text = prompts(qwen3, tmp_path / "shards")[canary["name"]]
        assert canary["prompt_ids"] == ids(qwen3, text), canary["name"]


def test_the_same_tokenizer_does_not_drift(compiled: Path, served: Path) -> None:
    drift = dlgc.drift(compiled, tokenizer=served)
    assert drift == dlgc.drift(compiled) == dlgc.drift(compiled, tokenizer="builtin")
    assert not drift.drifted
    assert not differences(drift)
    assert (drift.changes, drift.notes) == ([], [])
    done = run("verify", compiled, "--tokenizer", served)
    assert done.returncode == 0
    assert done.stdout.endswith("no drift (14 of 14 canaries are the same, token by token)\n")


def test_another_template_is_told_at_the_first_token_that_is_another(compiled: Path, served: Path) -> None:
    path = served / "chat_template.jinja"
    source = path.read_text()
    path.write_text(source.replace("<|im_start|>tool\\n", "<|im_start|>tool:\\n"))
    drift = dlgc.drift(compiled, chat_template=path)
    assert drift == dlgc.drift(compiled, tokenizer=served)
    found = differences(drift)
    assert drift.drifted
    assert set(found) == {"tool", "tools"}
    before, after = prompts(compiled / "tokenizer", compiled), prompts(served, compiled)
    for name, difference in found.items():
        was, now = (ids(served, texts[name]) for texts in (before, after))
        at = parted(was, now)
        assert (difference["kind"], difference["place"], difference["token"]) == ("template", "prompt", at)
        assert (difference["was"]["id"], difference["now"]["id"]) == (was[at], now[at])
    done = run("verify", compiled, "--chat-template", path)
    assert done.returncode == 1
    _, was_line, now_line, caret, *_ = done.stdout.splitlines()[1:]
    column = caret.index("^")
    assert was_line[column:].startswith("⏎{")
    assert now_line[column:].startswith(":⏎{")
    assert was_line[6:column] == now_line[6:column]


def test_a_generation_prompt_that_no_row_holds_is_part_of_the_comparison(compiled: Path, served: Path) -> None:
    """A server that opens a think block shows the model something new, whatever the history looks like."""
    path = served / "chat_template.jinja"
    head, _, tail = path.read_text().rpartition("assistant\\n' }}")
    path.write_text(f"{head}assistant\\n<think>' }}}}{tail}")
    found = differences(dlgc.drift(compiled, tokenizer=served))
    assert len(found) == 14
    assert {difference["place"] for difference in found.values()} == {"prompt"}
    assert found["plain"]["was"] is None
    assert found["plain"]["now"]["text"] == "<think>"


def test_another_tokenizer_is_told_where_the_text_stays_the_same(compiled: Path, served: Path) -> None:
    def forget_every_merge(tokenizer: dict[str, Any]) -> None:
        tokenizer["model"]["merges"] = []

    change(served / "tokenizer.json", forget_every_merge)
    drift = dlgc.drift(compiled, tokenizer=served)
    found = differences(drift)
    assert "tokenizer.json is another file" in drift.notes
    for name, text in prompts(served, compiled).items():
        was, now = ids(compiled / "tokenizer", text), ids(served, text)
        at = parted(was, now)
        assert (found[name]["kind"], found[name]["token"]) == ("tokenizer", at)
        assert (found[name]["was"]["id"], found[name]["now"]["id"]) == (was[at], now[at])
        assert found[name]["was"]["text"].startswith(found[name]["now"]["text"])
    shown = run("verify", compiled, "--tokenizer", served).stdout
    assert "the text is the same, its tokens are not" in shown
    assert "was | <|im_start|>|user|⏎|" in shown


def test_only_the_canary_of_what_changed_drifts(compiled: Path, served: Path) -> None:
    """A vocabulary that got one more word differs where the word is said, and nowhere else."""

    def learn_a_flag(tokenizer: dict[str, Any]) -> None:
        last = tokenizer["added_tokens"][-1]
        tokenizer["added_tokens"].append({**last, "id": last["id"] + 1, "content": "🇪🇺", "special": False})

    change(served / "tokenizer.json", learn_a_flag)
    drift = dlgc.drift(compiled, tokenizer=served)
    found = differences(drift)
    assert set(found) == {"emoji"}
    assert found["emoji"]["kind"] == "tokenizer"
    assert any(note.startswith("the vocabulary had") for note in drift.notes)


def test_a_decoder_that_says_something_else_is_drift(compiled: Path, served: Path) -> None:
    def shout(tokenizer: dict[str, Any]) -> None:
        replace = {"type": "Replace", "pattern": {"String": "!"}, "content": "!!"}
        tokenizer["decoder"] = {"type": "Sequence", "decoders": [tokenizer["decoder"], replace]}

    change(served / "tokenizer.json", shout)
    found = differences(dlgc.drift(compiled, tokenizer=served))
    assert set(found) == {"plain", "emoji"}
    # A target that the decoder spoils cannot be proved any more; a prompt that it spoils is told as such.
    assert {difference["kind"] for difference in found.values()} == {"decoder", "refusal"}


def test_stops_and_special_tokens_are_compared(compiled: Path, served: Path) -> None:
    change(served / "generation_config.json", lambda config: config.update(eos_token_id=[1, 2]))
    change(
        served / "tokenizer_config.json", lambda config: config.update({"bos_token": "<|im_start|>", "pad_token": None})
    )
    change(served / "tokenizer.json", lambda tokenizer: tokenizer["added_tokens"][-1].update(special=True))
    drift = dlgc.drift(compiled, tokenizer=served)
    assert drift.drifted
    assert not differences(drift)
    changes = {change["name"]: (change["gone"], change["new"]) for change in drift.changes}
    assert changes == {
        "stop_ids": ([], ["2"]),
        "stops": ([], ["<|endoftext|>"]),
        "bos_token": ([], ["<|im_start|>"]),
        "pad_token": (["<|endoftext|>"], []),
        "special tokens": ([], ["</state>"]),
    }
    done = run("verify", compiled, "--tokenizer", served)
    assert done.returncode == 1
    assert "drift[stop_ids]: `2` new\n" in done.stdout


def test_what_one_side_refuses_is_drift(compiled: Path, served: Path) -> None:
    path = served / "chat_template.jinja"
    path.write_text("{%- if tools %}{{ raise_exception('no tools') }}{% endif %}" + path.read_text())
    found = differences(dlgc.drift(compiled, tokenizer=served))
    assert {name: difference["kind"] for name, difference in found.items()} == {"tool": "refusal", "tools": "refusal"}
    assert "no tools" in found["tool"]["rendered"]


def test_a_dataset_that_took_its_marks_from_the_template_can_be_served_without_them(
    compiled: Path, served: Path, examples: Path, tmp_path: Path
) -> None:
    dlgc.compile(examples / "guide.jsonl", tmp_path / "shards", mask="template")
    path = served / "chat_template.jinja"
    path.write_text(path.read_text().replace("{%- generation %}", "").replace("{%- endgeneration %}", ""))
    assert not dlgc.drift(tmp_path / "shards", tokenizer=served).drifted
    assert not dlgc.drift(compiled, tokenizer=served).drifted


def test_ids_that_this_version_gives_no_more_are_told(compiled: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(compiled, tmp_path / "shards"))
    change(shards / "manifest.json", lambda manifest: manifest["canaries"][0]["ids"].append(5))
    change(shards / "manifest.json", lambda manifest: manifest["canaries"][1]["prompt_ids"].pop())
    found = differences(dlgc.drift(shards))
    assert {name: difference["kind"] for name, difference in found.items()} == {"plain": "version", "system": "version"}


def test_a_tokenizer_that_was_changed_beside_the_shards_is_no_measure(
    compiled: Path, served: Path, tmp_path: Path
) -> None:
    shards = Path(shutil.copytree(compiled, tmp_path / "shards"))
    change(shards / "tokenizer" / "generation_config.json", lambda config: config.update(eos_token_id=2))
    with pytest.raises(dlgc.ShardError, match=r"generation_config\.json` is not what was written"):
        dlgc.drift(shards, tokenizer=served)


def test_drift_as_json_is_what_python_gets(compiled: Path, qwen3: Path) -> None:
    done = run("verify", compiled, "--tokenizer", qwen3, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    drift = dlgc.drift(compiled, tokenizer=qwen3)
    assert found == {
        "drifted": True,
        "canaries": drift.canaries,
        "changes": drift.changes,
        "notes": drift.notes,
    }
    assert len(differences(drift)) == 14


@pytest.fixture
def raw(examples: Path, tmp_path: Path) -> Path:
    """Some files of several kinds, with two splits, a broken record and a compressed file."""
    folder = tmp_path / "raw"
    folder.mkdir()
    lines = [line for path in sorted(examples.glob("*.jsonl")) for line in path.read_text().splitlines()]
    records = [{**json.loads(line), "split": "validation" if at % 7 == 0 else "train"} for at, line in enumerate(lines)]
    text = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    (folder / "a.jsonl").write_text("".join(text[:40]) + '{"messages": \n' + "".join(text[40:50]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(text[50:90]).encode()))
    (folder / "c.json").write_text(json.dumps(records[90:], ensure_ascii=False))
    return folder


def confirmed(shards: Path, *source: Path) -> dlgc.Confirmation:
    found = dlgc.verify(shards, source=source).confirmation
    assert found is not None
    return found


def problems(found: dlgc.Confirmation) -> list[str]:
    return [f"{problem['place']}: {problem['message']}" for problem in found.problems]


def test_every_row_comes_out_of_the_sources_again(raw: Path, tmp_path: Path) -> None:
    report = dlgc.compile(raw, tmp_path / "shards", state="json-after", max_length=700, window="reject")
    assert report.rejected > 1
    found = confirmed(tmp_path / "shards", raw)
    assert found.confirmed
    assert problems(found) == found.notes == []
    assert (found.files, found.rows, found.targets) == (3, report.rows, report.ledger["turns"]["trained"])
    assert set(dlgc.manifest(tmp_path / "shards")["splits"]) == {"train", "validation"}
    done = run("verify", tmp_path / "shards", "--source", *sorted(raw.iterdir(), reverse=True))
    assert done.returncode == 0
    assert f"3 input(s) are what they were, {report.rows:,} rows came out again\n" in done.stdout
    assert done.stdout.endswith(f"{report.statement}: confirmed from the source\n")


def test_turns_with_rows_of_their_own_come_out_again(qwen3: Path, raw: Path, tmp_path: Path) -> None:
    report = dlgc.compile(raw, tmp_path / "shards", tokenizer=qwen3, template_kwargs={"enable_thinking": False})
    assert report.rows > report.ledger["dialogues"]["compiled"]
    found = confirmed(tmp_path / "shards", raw)
    assert found.confirmed, problems(found)
    assert (found.rows, found.targets) == (report.rows, report.ledger["turns"]["trained"])


def test_sources_are_told_by_their_content_wherever_they_are_now(raw: Path, tmp_path: Path) -> None:
    """A record without an id is called by its place, which has the old name."""
    records = [json.loads(line) for line in (raw / "a.jsonl").read_text().splitlines() if line.endswith("}")]
    anonymous = [{name: value for name, value in record.items() if name != "id"} for record in records]
    (raw / "d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in anonymous))
    dlgc.compile([raw / "d.jsonl", raw, raw / "d.jsonl"], tmp_path / "shards")
    moved = tmp_path / "moved"
    moved.mkdir()
    for number, path in enumerate(sorted(raw.iterdir(), reverse=True)):
        path.rename(moved / f"{number}.jsonl")
    (moved / "new.jsonl").write_text("")
    found = confirmed(tmp_path / "shards", moved)
    assert found.confirmed, problems(found)
    assert found.files == 6
    assert found.notes == [f"{moved / 'new.jsonl'} was no input of the dataset, and is not read"]


def test_what_changed_in_the_sources_is_named(raw: Path, tmp_path: Path) -> None:
    dlgc.compile(raw, tmp_path / "shards")
    rows = (
        dlgc.scan(tmp_path / "shards").collect().height + dlgc.scan(tmp_path / "shards", "validation").collect().height
    )
    path = raw / "a.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    record = json.loads(lines[3])
    said = next(message for message in record["conversation"] if message["role"] == "user")
    said["content"] = "!" + said["content"]
    lines[3] = json.dumps(record, ensure_ascii=False) + "\n"
    path.write_text("".join(lines))
    found = confirmed(tmp_path / "shards", raw)
    changed, row = problems(found)
    assert changed.startswith(f"{path}: has changed: expected BLAKE3 ")
    assert changed.endswith(f"found {blake3(path.read_bytes()).hexdigest()}")
    assert row.startswith(f"{path}:4: train/data-00000.arrow row 2: token ")
    assert not found.confirmed
    assert (found.files, found.rows) == (2, rows - 1)
    done = run("verify", tmp_path / "shards", "--source", raw)
    assert done.returncode == 1
    assert "not confirmed from the source: 2 problem(s)" in done.stdout


def test_rows_that_are_missing_on_one_side_do_not_hide_the_others(raw: Path, tmp_path: Path) -> None:
    dlgc.compile(raw, tmp_path / "shards")
    path = raw / "a.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], "{}\n", *lines[6:], lines[5]]))
    assert problems(confirmed(tmp_path / "shards", raw))[1:] == [
        f"{path}:6: train/data-00000.arrow row 4 does not come out of the sources",
        f"{path}:52: row 1 of the record is not in the shards",
    ]


def test_a_missing_source_is_named_once(raw: Path, tmp_path: Path) -> None:
    report = dlgc.compile(raw, tmp_path / "shards")
    (raw / "b.jsonl.gz").unlink()
    found = confirmed(tmp_path / "shards", raw)
    assert problems(found) == [f"{raw / 'b.jsonl.gz'}: is not among the sources"]
    assert (found.files, found.rows) == (2, report.rows - 40)


def rewrite(shards: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the rows of a dataset and makes the manifest agree: what somebody with bad intentions could do."""
    import xxhash

    path = shards / "train" / "data-00000.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    rows = table.to_pylist()
    edit(rows)
    tokenizer = tokenizers.Tokenizer.from_file(str(shards / "tokenizer" / "tokenizer.json"))
    for row in rows:
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=False)
        row["text_hash"] = [xxhash.xxh3_64_intdigest(text.encode())]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=table.schema), max_chunksize=1000)

    def agree(manifest: dict[str, Any]) -> None:
        found = {"bytes": path.stat().st_size, "blake3": blake3(path.read_bytes()).hexdigest()}
        trained = sum(label != -100 for row in rows for label in row["labels"])
        size = {"rows": len(rows), "tokens": sum(len(row["labels"]) for row in rows), "trained_tokens": trained}
        manifest["shards"][0].update(found, **size)
        manifest["splits"]["train"].update(size)

    change(shards / "manifest.json", agree)


def test_only_the_sources_show_a_prompt_that_was_tampered_with(raw: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    dlgc.compile(raw, shards)

    def poison(rows: list[dict[str, Any]]) -> None:
        rows[7]["input_ids"][4] += 1
        assert rows[7]["labels"][4] == -100

    rewrite(shards, poison)
    verdict = dlgc.verify(shards, source=raw)
    assert verdict.problems == []
    assert not verdict.sound
    assert verdict.confirmation is not None
    (found,) = problems(verdict.confirmation)
    assert ": train/data-00000.arrow row 7: token 4 is " in found


def test_labels_and_provenance_are_compared_too(raw: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    dlgc.compile(raw, shards)

    def tamper(rows: list[dict[str, Any]]) -> None:
        rows[1]["dialogue_id"] = ["another"]
        rows[2]["labels"][0] = rows[2]["input_ids"][0]
        rows[3]["line"] = [1]
        rows[4]["trained_messages"] = [[1]]

    rewrite(shards, tamper)
    found = problems(confirmed(shards, raw))
    assert [problem.partition(".arrow ")[2] for problem in found if ".arrow" in problem] == [
        "row 1: `dialogue_id` is another than the source gives",
        "row 2: the label of token 0 is 0, the source gives -100",
        "row 3 does not come out of the sources",
        "row 4: `trained_messages` is another than the source gives",
    ]
    assert sum("is not in the shards" in problem for problem in found) == 1


def test_standard_input_cannot_be_a_source(compiled: Path) -> None:
    done = run("verify", compiled, "--source", "-")
    assert done.returncode == 2
    assert "can be read only once" in done.stderr
    assert "one at a time" in run("verify", compiled, "--source", "x", "--tokenizer", "y").stderr


def ends(shards: Path) -> dict[int, int]:
    """Counts the last ids of all runs of trained tokens."""
    found: dict[int, int] = {}
    for labels in dlgc.scan(shards).select("labels").collect()["labels"].to_list():
        for at, label in enumerate(labels):
            if label != -100 and (at + 1 == len(labels) or labels[at + 1] == -100):
                found[label] = found.get(label, 0) + 1
    return found


PROMPT = "each the exact continuation of its inference prompt, ending in its stop token"


def test_the_certificate_is_what_the_rows_are(examples: Path, qwen3: Path, tmp_path: Path) -> None:
    for name, options in {"builtin": {}, "qwen3": {"tokenizer": qwen3, "max_length": 300, "max_rejects": 1.0}}.items():
        shards = tmp_path / name
        report = dlgc.compile(examples, shards, **options)
        certificate = dlgc.manifest(shards)["certificate"]
        assert certificate == report.certificate
        targets = report.ledger["turns"]["trained"]
        assert (certificate["proof"], certificate["targets"], certificate["rows"]) == ("prompt", targets, report.rows)
        (stop,) = certificate["stops"]
        assert ends(shards) == {stop["id"]: targets}
        assert (
            tokenizers.Tokenizer.from_file(str(shards / "tokenizer/tokenizer.json")).id_to_token(stop["id"])
            == (stop["text"])
        )
        assert stop["ends_generation"]
        assert not stop["appended"]
        assert report.statement == f"{targets:,} targets in {report.rows:,} rows, {PROMPT}"
        verdict = dlgc.verify(shards)
        assert (verdict.targets, verdict.statement, verdict.problems) == (targets, report.statement, [])


def test_compile_ends_with_the_certificate_and_verify_confirms_it(compiled: Path, tmp_path: Path) -> None:
    guide = ROOT / "examples" / "dialogues" / "guide.jsonl"
    statement = f"5 targets in 3 rows, {PROMPT}"
    assert run("compile", guide, "-o", tmp_path / "out").stderr.endswith(f"{statement}\n")
    alone = run("verify", compiled).stdout
    parts = "confirmed from the shards: counts, ids, hashes, stops by id; the prompts only with --source"
    assert alone.endswith(f"{statement}\n{parts}\n")
    assert run("verify", compiled, "--source", guide).stdout.endswith(f"{statement}: confirmed from the source\n")


def test_marks_of_the_template_certify_nothing(examples: Path, tmp_path: Path) -> None:
    for mask in ("template", "hf-compat"):
        report = dlgc.compile(examples / "guide.jsonl", tmp_path / mask, mask=mask)
        assert (report.certificate["proof"], report.certificate["stops"]) == ("none", [])
        assert report.statement is not None
        assert report.statement.startswith("5 turns in 3 rows, trained where the template's own marks say so")
        verdict = dlgc.verify(tmp_path / mask, source=examples / "guide.jsonl")
        assert verdict.sound
        assert verdict.confirmation is not None
        assert verdict.confirmation.statement == report.statement
    (tmp_path / "empty.jsonl").write_text("{}")
    report = dlgc.compile(tmp_path / "empty.jsonl", tmp_path / "empty")
    assert (report.statement, report.certificate["targets"]) == (None, 0)
    assert dlgc.verify(tmp_path / "empty").problems == []


AFTER_CALLS = "</tool_call>' }}\n            {%- endfor %}\n            {{- "
STOP = "{{- '<|im_end|>' }}\n        {%- endgeneration %}\n        {{- '\\n' }}"
EXCEPTIONS = {
    "a stop of another model's template": (
        ("<|im_end|>", "<end_of_turn>"),
        "ending in its stop, which is no token of this tokenizer",
    ),
    "a stop that only calls have": (
        (f"{AFTER_CALLS}'<|im_end|>'", f"{AFTER_CALLS}'<eoc>' if message.tool_calls else '<|im_end|>'"),
        "ending in its stop token, or, 1 of them, in a stop that is no token of this tokenizer",
    ),
    "no stop after the last turn": (
        (STOP, "{%- endgeneration %}\n        {{- '' if loop.last else '<|im_end|>\\n' }}"),
        f"{PROMPT}; stops that are not the template's but the model's own: 5",
    ),
    "a stop at which the model does not stop": (
        ("<|im_end|>", "<|endoftext|>"),
        f"{PROMPT}; stops that are none of the ids that end generation: 5",
    ),
}


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_the_certificate_hides_no_exception(exception: str, examples: Path, served: Path, tmp_path: Path) -> None:
    edit, said = EXCEPTIONS[exception]
    path = served / "chat_template.jinja"
    source = path.read_text()
    assert edit[0] in source
    path.write_text(source.replace(*edit))
    report = dlgc.compile(examples / "guide.jsonl", tmp_path / "shards", tokenizer=served)
    assert report.ledger["turns"]["trained"] == 5
    assert report.statement is not None
    assert report.statement.endswith(said)
    verdict = dlgc.verify(tmp_path / "shards", source=examples / "guide.jsonl")
    assert verdict.sound, (verdict.problems, verdict.confirmation)
    stops = report.certificate["stops"]
    assert sum(stop["targets"] for stop in stops) == 5
    text = next((stop["text"] for stop in stops if stop["id"] is None), None)
    by_id = {stop["id"]: stop["targets"] for stop in stops if stop["id"] is not None}
    assert by_id == {id_: count for id_, count in ends(tmp_path / "shards").items() if id_ in by_id}
    assert (text is None) == (sum(by_id.values()) == 5)


def test_the_text_of_control_tokens_is_part_of_the_certificate(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "<|im_end|>?"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "raw.jsonl").write_text(json.dumps(record))
    report = dlgc.compile(tmp_path / "raw.jsonl", tmp_path / "out", control_tokens="text")
    assert report.certificate["control_texts"] == 1
    assert report.statement is not None
    assert report.statement.endswith(
        "records with the text of control tokens, which must stay text at inference too: 1"
    )
    rejected = dlgc.compile(tmp_path / "raw.jsonl", tmp_path / "none", control_tokens="text", max_length=5)
    assert rejected.certificate["control_texts"] == 0


def test_a_stop_that_is_only_its_text_is_found_out(compiled: Path, tmp_path: Path) -> None:
    """Ids that decode to the stop are not the stop: the hashes cannot tell, the ids can."""
    shards = Path(shutil.copytree(compiled, tmp_path / "shards"))
    bare = json.loads((shards / "tokenizer" / "tokenizer.json").read_text())
    bare["added_tokens"] = []
    spelt = tokenizers.Tokenizer.from_str(json.dumps(bare)).encode("<|im_end|>").ids
    assert len(spelt) > 1

    def spell(rows: list[dict[str, Any]]) -> None:
        row = rows[0]
        at = max(index for index, label in enumerate(row["labels"]) if label != -100)
        for name, values in (("input_ids", spelt), ("labels", spelt), ("assistant_masks", [1] * len(spelt))):
            row[name][at : at + 1] = values

    rewrite(shards, spell)
    target, certificate = (problem["message"] for problem in dlgc.verify(shards).problems)
    assert target.endswith(f"<|im_end|>`, and its last id, {spelt[-1]}, is no stop")
    assert certificate == "the certificate has stops by id {1: 5}, the rows have {1: 4}"


def test_a_certificate_that_says_something_else_is_a_problem(compiled: Path, tmp_path: Path) -> None:
    for number, edit in enumerate(
        [
            {"targets": 6},
            {"rows": 2},
            {"proof": "none"},
            {"stops": []},
            {"stops": [{"text": "<|im_end|>", "id": 1, "ends_generation": False, "appended": False, "targets": 5}]},
            {"stops": [{"text": "<|im_end|>", "id": 1, "ends_generation": True, "appended": False, "targets": 4}]},
        ]
    ):
        shards = Path(shutil.copytree(compiled, tmp_path / str(number)))
        change(shards / "manifest.json", lambda manifest, edit=edit: manifest["certificate"].update(edit))
        assert dlgc.verify(shards).problems, edit
