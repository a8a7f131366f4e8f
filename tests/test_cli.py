"""The command line as a user meets it: output, exit status, errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlgc", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=stdin,
        check=False,
    )


GOOD = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
BAD = '{"messages": [{"role": "user", "content": "hi"}, {"role": "bot", "content": "hello"}]}\n'


def test_help_names_every_command_and_shows_examples() -> None:
    text = run("--help").stdout
    for command in ("compile", "check", "show", "stats", "verify"):
        assert f"\n    {command} " in text
        assert run(command, "--help").returncode == 0
    assert "examples:" in text
    assert "Exit status: 0 clean" in text


def test_show_prints_exactly_the_assistants_words_and_stop_tokens_as_trained(examples: Path) -> None:
    stop = "<|im_end|>"
    for number, line in enumerate((examples / "guide.jsonl").read_text().splitlines(), start=1):
        shown = run("show", f"{examples / 'guide.jsonl'}:{number}").stdout
        shown = re.sub("×[0-9]+", "", shown)  # the sign for several tokens in one character
        parts = re.findall(r"\[\[(.*?)\]\]", shown, re.DOTALL)[1:]
        trained = [part.replace("|", "").replace("⏎\n", "\n") for part in parts]
        expected = []
        for message in json.loads(line)["conversation"]:
            if message["role"] != "assistant":
                continue
            said = message.get("content") or ""
            if call := message.get("tool_call"):
                said = f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
            expected.append((said + stop).replace("|", ""))
        assert trained == expected


def test_show_marks_trained_tokens_by_colour_when_asked(examples: Path) -> None:
    shown = run("show", f"{examples / 'guide.jsonl'}:1", "--color", "always").stdout
    assert "\033[32m" in shown
    assert "[[" not in shown.split("\n", 1)[1]


def test_show_as_json_is_what_render_gives(examples: Path) -> None:
    path = examples / "guide.jsonl"
    shown = json.loads(run("show", f"{path}[2]", "--json", "--state", "json-after").stdout)
    rendered = dlgc.render(path.read_text().splitlines()[1], state="json-after")
    assert shown["rows"][0]["input_ids"] == rendered.input_ids
    assert '<state>\n{"intent": "book_train"' in rendered.text
    trained = "".join(
        rendered.text.encode()[span.start : span.end].decode() for span in rendered.spans if span.trained is not None
    )
    assert trained.endswith("</state><|im_end|>")


def test_rejects_are_shown_with_place_and_help_and_decide_the_status(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(GOOD + BAD)
    done = run("compile", "raw.jsonl", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "error[unknown-role]: `bot` is no role\n  --> raw.jsonl:2  $.messages[1].role\n" in done.stderr
    assert "^^^^^" in done.stderr
    assert "help: roles are system, developer, user, assistant and tool" in done.stderr
    assert "1 of 2 records were rejected (50.0 %)" in done.stderr
    assert dlgc.verify(tmp_path / "out").problems == []
    assert run("compile", "raw.jsonl", "-o", "more", "--max-rejects", "0.5", cwd=tmp_path).returncode == 0


def test_a_run_that_fails_says_what_to_do_and_ends_with_two(tmp_path: Path) -> None:
    for arguments, text in {
        ("compile", "missing", "-o", "out"): "error: `missing`: No such file",
        ("compile", "missing"): "hint: `dlgc compile --help`",
        ("verify", "."): "hint: the manifest is written last",
        ("show", "nothing"): "hint: `FILE:N` is line or element N",
        ("check", "empty"): "no input file in `empty`",
        ("check", "raw.jsonl", "--max-length", "many"): "`--max-length` must be a number",
        ("check", "raw.jsonl", "--date", "tomorrow"): "expected YYYY-MM-DD",
        ("--explain", "no-such-code"): "there is no diagnostic `no-such-code`",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "raw.jsonl").write_text(GOOD)
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert text in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_nothing_compiled_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text("")
    done = run("compile", "raw.jsonl", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing was compiled" in done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["ledger"]["records"]["read"] == 0


def test_standard_input_and_globs_are_inputs(tmp_path: Path) -> None:
    assert run("compile", "-", "-o", "out", cwd=tmp_path, stdin=GOOD * 3).returncode == 0
    assert dlgc.scan(tmp_path / "out").collect()["line"].to_list() == [[1], [2], [3]]
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(GOOD)
    (tmp_path / "notes.md").write_text("not data")
    report = json.loads(run("check", "*.jsonl", "--json", cwd=tmp_path).stdout)
    assert report["ledger"]["records"]["read"] == 2
    report = json.loads(run("check", ".", "--json", cwd=tmp_path).stdout)
    assert [path for path, _ in report["skipped"] if "out" not in path] == ["./notes.md"]


def test_options_may_stand_in_dlgc_toml_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text(GOOD)
    (tmp_path / "dlgc.toml").write_text("max_length = 4\n")
    assert "turn-too-long" in run("check", "raw.jsonl", cwd=tmp_path).stderr
    assert run("check", "raw.jsonl", "--max-length", "64", cwd=tmp_path).returncode == 0
    (tmp_path / "dlgc.toml").write_text("max_lenght = 4\n")
    assert "no such option: max_lenght" in run("check", "raw.jsonl", cwd=tmp_path).stderr


def test_a_reader_that_goes_away_is_no_error(examples: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dlgc", "show", f"{examples / 'guide.jsonl'}:1"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == ""


def test_every_code_is_explained() -> None:
    markdown = _dlgc.explain()
    assert markdown is not None
    codes = re.findall(r"^## (\S+)$", markdown, re.MULTILINE)
    assert len(codes) == len(set(codes)) >= 30
    for code in codes:
        text = run("--explain", code).stdout if code == "control-token" else _dlgc.explain(code)
        assert text
        assert "What to do:" in text
