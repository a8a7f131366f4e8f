"""The README's commands and code run, and print what it says; its picture is what the command in it prints.

`python tests/test_readme.py` writes outputs and picture anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<output>.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINKED = ("examples", "scripts", "tests")
MODEL = "models/Qwen3-0.6B"
PICTURE = "docs/against.svg"
DRAWN = f"dlgc show examples/dialogues/refusals.jsonl:1 --tokenizer {MODEL} --against trl-default"


def run(command: str, folder: Path) -> str:
    """Runs a command of the README as a reader would; returns what it prints."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    return subprocess.run(  # noqa: S602  # the project's own documented commands
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


def outputs(text: str, folder: Path, *, model: bool) -> list[tuple[str, str, str]]:
    """Runs the commands with or without a model; returns each with the output that is there, and that should be."""
    for name in LINKED:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    (folder / "readme.py").write_text("".join(PYTHON.findall(text)))
    found = [match for match in CONSOLE.finditer(text) if (MODEL in match["command"]) == model]
    return [(match["command"], match["output"], run(match["command"], folder)) for match in found]


BAR = re.compile(r"```text\n(?P<bar>[^\n]+)\n```")


def frame(folder: Path) -> str:
    """Runs a check on a terminal of 120 columns; returns the frame of its bar that is nearest to 40 %."""
    sys.path.insert(0, str(ROOT / "scripts"))  # as pytest has it
    import broken_corpus

    raw = folder / "large.jsonl"
    raw.write_bytes(b"\n".join(broken_corpus.lines(30_000)))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "dlgc", "check", str(raw), "--max-rejects", "1"]
    process = subprocess.Popen(command, stderr=theirs, env={**os.environ, "COLUMNS": "120"})
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody is there any more
        while more := os.read(ours, 65536):
            said += more
    os.close(ours)
    assert process.wait() == 0, said
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", said.decode())
    frames = [text for text in plain.split("\r") if text.startswith("checking ") and "%" in text and "\n" not in text]

    def share(text: str) -> float:
        found = re.search(r"(\d+) %", text)
        return float(found[1]) if found else 0.0

    return min(frames, key=lambda text: abs(share(text) - 40))


def shape(text: str) -> str:
    """What stays the same in every frame."""
    return re.sub(r" +", " ", re.sub(r"[\d,.:]*\d", "0", re.sub(r"━+─*", "━", text)))


def test_the_readme_shows_the_progress_bar(tmp_path: Path) -> None:
    shown = BAR.findall(README.read_text(encoding="utf-8"))
    assert len(shown) == 1
    assert shape(shown[0]) == shape(frame(tmp_path)), "the bar is another: run `python tests/test_readme.py`"
    assert len(shown[0]) <= 120


def picture(folder: Path) -> str:
    """Draws what the command of the picture prints."""
    from dlgc.cli import main

    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*shlex.split(DRAWN)[1:], "--color", "always"]) == 0
    command = [sys.executable, str(ROOT / "scripts" / "picture.py"), f"$ {DRAWN}"]
    return subprocess.run(command, input=printed.getvalue(), stdout=subprocess.PIPE, text=True, check=True).stdout


def test_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    found = outputs(README.read_text(encoding="utf-8"), tmp_path, model=False)
    assert len(found) >= 5
    for command, there, should in found:
        assert there == should, f"`{command}` prints something else: run `python tests/test_readme.py`"


@pytest.mark.train
@pytest.mark.skipif(find_spec("trl") is None, reason="training is not installed: pip install 'dlgc[train]'")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # TRL imports it
def test_the_readme_shows_what_trl_trains(tmp_path: Path, qwen3: Path) -> None:
    from conftest import write_qwen3_now

    text = README.read_text(encoding="utf-8")
    write_qwen3_now(qwen3, tmp_path / MODEL)
    assert re.findall(r"!\[[^]]*\]\((.*?)\)", text)[0] == PICTURE
    drawn = picture(tmp_path)
    assert (ROOT / PICTURE).read_text(encoding="utf-8") == drawn, "the picture is another: run this file"
    for words in ("TRL 1.", "the user's words are trained", 'class="r"', 'class="g"'):
        assert words in drawn
    found = outputs(text, tmp_path, model=True)
    assert found
    for command, there, should in found:
        assert there == should, f"`{command}` prints something else: run `python tests/test_readme.py`"


def rewrite() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))  # as pytest has it
    import real_tokenizers
    from conftest import write_qwen3_now

    text = README.read_text(encoding="utf-8")
    for model in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if model:
                write_qwen3_now(real_tokenizers.folder("qwen3"), folder / MODEL)
                (ROOT / PICTURE).parent.mkdir(exist_ok=True)
                (ROOT / PICTURE).write_text(picture(folder), encoding="utf-8")
            for command, there, should in outputs(text, folder, model=model):
                text = text.replace(f"```console\n$ {command}\n{there}```", f"```console\n$ {command}\n{should}```")
    with tempfile.TemporaryDirectory() as name:
        drawn = frame(Path(name))
        text = BAR.sub(lambda _: f"```text\n{drawn}\n```", text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
