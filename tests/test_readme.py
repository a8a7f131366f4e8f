"""The README's commands and code run, and print what it says. `python tests/test_readme.py` writes the output anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<output>.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def outputs(text: str, folder: Path) -> list[tuple[str, str, str]]:
    """Runs every command; returns each with the output that is there and the one that should be."""
    for name in ("examples", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "readme.py").write_text("".join(PYTHON.findall(text)))
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    found = []
    for match in CONSOLE.finditer(text):
        done = subprocess.run(  # noqa: S602  # the project's own documented commands
            match["command"],
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        found.append((match["command"], match["output"], done.stdout))
    return found


def test_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    found = outputs(README.read_text(encoding="utf-8"), tmp_path)
    assert len(found) >= 5
    for command, there, should in found:
        assert there == should, f"`{command}` prints something else: run `python tests/test_readme.py`"


def rewrite() -> None:
    text = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for command, there, should in outputs(text, Path(folder)):
            text = text.replace(f"```console\n$ {command}\n{there}```", f"```console\n$ {command}\n{should}```")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
