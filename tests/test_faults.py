"""Hard input and a hard world: each fault has a code and words, costs only what it must, and never half a dataset."""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dlgc
from dlgc.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

DLGC = [sys.executable, "-m", "dlgc"]


def dialogue(number: int, words: int = 20) -> dict[str, Any]:
    return {
        "id": f"d{number}",
        "messages": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": " ".join(f"word{number * words + n}" for n in range(words))},
        ],
    }


def lines(count: int, words: int = 20) -> bytes:
    return "".join(json.dumps(dialogue(number, words)) + "\n" for number in range(count)).encode()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


GOOD = json.dumps(dialogue(0)).encode()

RECORDS: dict[str, tuple[str, bytes, str]] = {
    "invalid-utf8": ("invalid-utf8", GOOD.replace(b"question", b"qu\xe9stion"), "$"),
    "lone-surrogate": ("lone-surrogate", GOOD.replace(b"question", rb"\ud83d question"), "$"),
    "nan": ("non-finite-number", GOOD.replace(b'"d0"', b"NaN"), "$"),
    "too-large": ("record-too-large", GOOD.replace(b"question", b"x" * 5000), "$"),
    "nested": ("json-too-deep", b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "$"),
    "cut": ("invalid-json", GOOD[:-9], "$"),
    "empty-dialogue": ("empty-dialogue", b'{"messages": []}', "$.messages"),
    "unknown-role": ("unknown-role", GOOD.replace(b'"assistant"', b'"bot"'), "$.messages[1].role"),
    "no-call": (
        "orphan-tool-result",
        b'{"messages": [{"role": "tool", "content": "1"}, {"role": "assistant", "content": "1"}]}',
        "$.messages[0]",
    ),
    "nul": ("unknown-format", b'{"text": "\\u0000"}', "$"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_bad_record_has_a_code_a_place_and_words_and_costs_only_itself(case: str, tmp_path: Path) -> None:
    code, record, path = RECORDS[case]
    raw = write(tmp_path / "raw.jsonl", GOOD + b"\n" + record + b"\n" + GOOD + b"\n")
    report = dlgc.compile(
        raw, tmp_path / "out", max_record_bytes=4096 if case == "too-large" else 1 << 20, max_rejects=1.0
    )

    (example,) = report.diagnostics[code]["examples"]
    assert example["location"] == f"{raw}:2"
    assert example["path"] == path
    assert example["message"]
    assert report.ledger["records"]["read"] == 3
    assert report.ledger["dialogues"]["compiled"] == 2
    kept = (tmp_path / "out" / "rejects" / "data.bin").read_bytes()
    assert kept == (record[:4096] if case == "too-large" else record)


def test_a_key_that_stands_twice_is_a_warning_and_the_last_one_wins(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", GOOD.replace(b'"question 0"', b'"first", "content": "second"'))
    report = dlgc.compile(raw, tmp_path / "out")
    assert report.diagnostics["duplicate-key"]["count"] == 1
    assert report.ledger["dialogues"]["compiled"] == 1


def test_an_empty_file_is_said_and_stops_nothing(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": b"",
        "b.json": b"[]",
        "c.jsonl.gz": gzip.compress(b"\n\n"),
        "d.jsonl": GOOD,
    }.items():
        write(tmp_path / "raw" / name, content)
    report = dlgc.compile(tmp_path / "raw", tmp_path / "out")
    assert report.failure is None
    assert report.diagnostics["empty-file"]["count"] == 3
    assert report.ledger["faults"] == 0
    assert [Path(fault["file"]).name for fault in report.manifest["faults"]] == ["a.jsonl", "b.json", "c.jsonl.gz"]  # type: ignore[index]


def test_an_unreadable_file_among_readable_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "raw" / "a.jsonl", GOOD)
    (tmp_path / "raw" / "b.jsonl").symlink_to(tmp_path / "nowhere")  # root may read everything but this
    write(tmp_path / "raw" / "c.jsonl", GOOD)
    assert main(["compile", str(tmp_path / "raw"), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "error[unreadable-file]: the file cannot be read: No such file or directory" in said
    assert "failed: 1 file(s) could not be read to their end" in said
    assert dlgc.verify(tmp_path / "out").rows == 2


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", lines(20_000))
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.01):
            with raw.open("ab") as file:
                file.write(b" ")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        report = dlgc.check(raw)
    finally:
        stop.set()
        writer.join()
    assert report.diagnostics["file-changed"]["count"] == 1
    assert report.failure is not None
    assert "file-changed" not in dlgc.check(raw).diagnostics


def test_an_output_folder_that_holds_something_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = str(write(tmp_path / "raw.jsonl", GOOD))
    out = tmp_path / "out"
    assert main(["compile", raw, "-o", str(out)]) == 0
    before = digests(out)
    assert main(["compile", raw, "-o", str(out)]) == 2
    assert "already holds a dataset\nhint: `--overwrite` replaces it" in capsys.readouterr().err
    assert digests(out) == before
    write(tmp_path / "mine" / "thesis.tex", b"words")
    assert main(["compile", raw, "-o", str(tmp_path / "mine")]) == 2
    assert main(["compile", raw, "-o", str(tmp_path / "mine"), "--overwrite"]) == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    write(tmp_path / "raw2.jsonl", lines(3))
    assert main(["compile", str(tmp_path / "raw2.jsonl"), "-o", str(out), "--overwrite"]) == 0
    assert dlgc.verify(out).rows == 3, "never mixed"


# The disk


def small_mount(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    yield from small_mount(tmp_path / "full", "1m")


def test_a_full_disk_is_an_error_in_words_and_leaves_no_dataset(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = str(write(tmp_path / "raw.jsonl", lines(4000)))
    assert main(["compile", raw, "-o", str(full / "out")]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert str(full / "out") in said
    with pytest.raises(dlgc.ShardError, match="no dataset"):
        dlgc.scan(full / "out")
    for junk in full.iterdir():
        shutil.rmtree(junk)
    assert main(["compile", str(write(tmp_path / "few.jsonl", lines(10))), "-o", str(full / "out")]) == 0


def test_a_read_only_disk_is_an_error_in_words(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(full)], check=True)  # noqa: S607
    raw = str(write(tmp_path / "raw.jsonl", GOOD))
    assert main(["compile", raw, "-o", str(full / "out")]) == 2
    assert "Read-only file system" in capsys.readouterr().err


def test_a_limit_on_file_size_is_an_error_in_words(tmp_path: Path) -> None:
    raw = str(write(tmp_path / "raw.jsonl", lines(20_000)))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [*DLGC, "compile", raw, "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,  # one thread
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


# Pipes and signals


def test_a_reader_that_goes_away_stops_nothing_that_writes(tmp_path: Path) -> None:
    """`dlgc compile … 2>&1 | head -1`: the talk has no listener any more, the dataset is made all the same."""
    raw = str(write(tmp_path / "raw.jsonl", b"{}\n" * 40 + lines(50)))
    out = tmp_path / "out"
    command = f"{sys.executable} -m dlgc compile {raw} -o {out} --max-rejects 1 2>&1 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602  # a pipe is what is tested
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert dlgc.verify(out).sound


def test_data_into_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", json.dumps(dialogue(0, words=60_000)).encode())
    command = f"{sys.executable} -m dlgc show {raw}:1 --max-length none | head -c 100"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602  # as above
    assert len(done.stdout) == 100
    assert done.stderr == ""


def started(command: list[str], **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  # those of Popen
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_ctrl_c_stops_promptly_and_commits_nothing(tmp_path: Path) -> None:
    endless = started(["yes", json.dumps(dialogue(0, words=60))], stdout=subprocess.PIPE)
    process = started([*DLGC, "compile", "-", "-o", str(tmp_path / "out")], stdin=endless.stdout)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    endless.kill()
    endless.communicate()
    assert process.returncode == 130
    assert "interrupted; nothing was committed" in said
    assert "Traceback" not in said
    assert time.monotonic() - asked < 10, "a machine that does other things takes its time; usually a tenth of a second"
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_ctrl_c_is_heard_while_nothing_comes_in(tmp_path: Path) -> None:
    process = started([*DLGC, "compile", "-", "-o", str(tmp_path / "out")], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.communicate()


# Going on


def digests(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


MIXED = ("train", "validation", "test")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Records of every fate, in every split: several shards with small ones."""
    records = []
    for number in range(3000):
        record = dialogue(number, words=12)
        record["split"] = MIXED[number % 7 % 3]
        records.append(json.dumps(record) if number % 11 else '{"broken": ')
    folder = tmp_path / "raw"
    write(folder / "a.jsonl", "\n".join(records[:1500]).encode())
    write(folder / "b.jsonl.gz", gzip.compress("\n".join(records[1500:2500]).encode())[:-20])
    write(
        folder / "c.json",
        ("[" + ",".join(record for record in records[2500:] if "broken" not in record) + "]").encode(),
    )
    return folder


OPTIONS = ["--max-rejects", "1", "--shard-tokens", "5000", "--threads", "2"]


def test_an_interrupted_run_goes_on_and_the_bytes_are_the_same(mixed: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    options: dict[str, Any] = {"max_rejects": 1.0, "shard_tokens": 5000}
    dlgc.compile(mixed, whole, **options)
    assert len(list((whole / "train").glob("*.arrow"))) > 3

    class EnoughError(Exception):
        pass

    for shards in (1, 2, 4, 6):

        def stop(*_: object, shards: int = shards) -> None:
            if len(list(out.glob("*/data-*.arrow"))) >= shards:
                raise EnoughError

        with pytest.raises(EnoughError):
            dlgc.compile(mixed, out, progress=stop, **options)
        assert not (out / "manifest.json").exists()
    report = dlgc.compile(mixed, out, **options)
    assert report.resumed > 500
    assert digests(out) == digests(whole)
    assert not list(out.glob(".dlgc*"))


def test_other_inputs_or_options_begin_anew(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"max_rejects": 1.0, "shard_tokens": 5000}

    def stop(*_: object) -> None:
        if len(list(out.glob("*/data-*.arrow"))) >= 2:
            raise KeyboardInterrupt

    def interrupt() -> None:
        shutil.rmtree(out, ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            dlgc.compile(mixed, out, progress=stop, **options)

    interrupt()
    assert dlgc.compile(mixed, out, **{**options, "train_on": "last_turn"}).resumed == 0
    assert dlgc.verify(out, source=mixed).sound
    interrupt()
    text = (mixed / "a.jsonl").read_text()
    (mixed / "a.jsonl").write_text(text.replace("question 1", "question 9", 1))
    assert dlgc.compile(mixed, out, **options).resumed == 0
    assert dlgc.verify(out, source=mixed).sound
    interrupt()
    next(out.glob("train/data-00000.arrow")).write_bytes(b"short")
    assert dlgc.compile(mixed, out, **options).resumed == 0
    assert dlgc.verify(out, source=mixed).sound


# Severities


def test_severities_are_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = GOOD.replace(b'"question 0"', b'"first", "content": "second"')
    orphan = RECORDS["no-call"][1]
    raw = write(tmp_path / "raw.jsonl", b"\n".join([twice, orphan, GOOD]))
    report = dlgc.check(raw, max_rejects=1.0)
    assert report.ledger["dialogues"]["compiled"] == 2
    report = dlgc.check(raw, max_rejects=1.0, severity={"duplicate-key": "error", "orphan-tool-result": "warning"})
    assert report.ledger["dialogues"] == {"imported": 2, "excluded": 0, "compiled": 2, "rejected": 0}
    assert report.ledger["records"]["rejected"] == 1
    assert report.diagnostics["duplicate-key"]["severity"] == "error"
    assert report.diagnostics["duplicate-key"]["examples"][0]["rendered"].startswith("error[duplicate-key]")
    assert report.diagnostics["orphan-tool-result"]["severity"] == "warning"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dlgc.toml").write_text('max_rejects = 1.0\n[severity]\nduplicate-key = "note"\n')
    assert main(["check", "raw.jsonl"]) == 0
    said = capsys.readouterr().err
    assert "[duplicate-key]" not in said
    assert "note     duplicate-key" in said
    for table, words in (
        ('duplicate-keys = "note"', "`severity.duplicate-keys`: there is no such diagnostic"),
        ('invalid-json = "warning"', "`severity.invalid-json`: it is always an error"),
        ('duplicate-key = "fatal"', "the option `severity` is wrong: unknown variant `fatal`"),
    ):
        (tmp_path / "dlgc.toml").write_text(f"[severity]\n{table}\n")
        assert main(["check", "raw.jsonl"]) == 2
        assert words in capsys.readouterr().err


def test_a_fault_that_the_user_accepts_does_not_fail_the_run(tmp_path: Path) -> None:
    content = gzip.compress(lines(3000))
    raw = write(tmp_path / "raw.jsonl.gz", content[:-30])
    assert dlgc.check(raw).failure is not None
    report = dlgc.check(raw, severity={"truncated-gzip": "warning"})
    assert report.failure is None
    assert report.diagnostics["truncated-gzip"]["count"] == 1


def test_a_wrong_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "raw.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dlgc.toml").write_text("threads = 'two'\n")
    assert main(["check", "raw.jsonl"]) == 2
    assert 'the option `threads` is wrong: invalid type: string "two", expected usize\n' in capsys.readouterr().err


# One page


def test_however_much_is_wrong_it_is_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [record for _, record, _ in RECORDS.values() if len(record) < 2000]
    raw = write(tmp_path / "raw.jsonl", b"\n".join(bad * 2000))
    assert main(["check", str(raw)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") < 100
    for code in ("invalid-utf8", "unknown-role", "orphan-tool-result"):
        assert f"error    {code:<18}        2,000" in said, said
