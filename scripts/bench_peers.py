"""The libraries that dlgc's tokeniser is measured beside, each in an environment of its own in the cache."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("DLGC_CACHE", Path.home() / ".cache" / "dlgc")) / "bench"
REQUIREMENTS = Path(__file__).with_name("requirements-bench.txt")


@dataclasses.dataclass(frozen=True)
class Peer:
    """A library at a version."""

    library: str
    version: str

    @property
    def name(self) -> str:
        """As tables name it."""
        return f"{self.library} {self.version}"

    @functools.cached_property
    def refusal(self) -> str | None:
        """Why it is not here, in pip's words; `None` if it is here. Installs it if it is not in the cache yet."""
        if self.python.is_file():
            return None
        folder = self.python.parents[1]
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        try:
            subprocess.run([sys.executable, "-m", "venv", partial], check=True)
            pip = [str(partial / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            command = [*pip, "--only-binary", ":all:", f"{self.library}=={self.version}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return reason(done.stderr)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return None

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return CACHE / "peers" / f"{self.library}-{self.version}" / "bin" / "python"


def peers(requirements: str | None = None) -> list[Peer]:
    """Those of `requirements-bench.txt`, in its order.

    Raises:
        ValueError: A line pins nothing.
    """
    text = REQUIREMENTS.read_text(encoding="utf-8") if requirements is None else requirements
    found = []
    for line in text.splitlines():
        pinned = line.partition("#")[0].strip()
        if not pinned:
            continue
        library, equals, version = pinned.partition("==")
        if not equals:
            raise ValueError(f"expected `name==version`, found `{pinned}`")
        found.append(Peer(library, version))
    return found


def reason(said: str) -> str:
    """What pip gives as its reason, without paths, in one line."""
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    line = (errors or said.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR:").strip()
    return re.sub(r"(?:/[^\s/]+){2,}", "…", line)[:200]
