"""Summaries of what windows leave out, written by a callable: asked for in batches, each once, kept in a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlgc.exceptions import OptionsError
from dlgc.options import CompileOptions


@dataclass(frozen=True)
class SummaryRequest:
    """A summary that is wanted.

    Attributes:
        messages: What a window leaves out, from the first message after the head on: `role`, `content`, and where there
            are any `reasoning`, `name`, `tool_calls`.
        max_tokens: Room for the summary, in tokens of the dataset's tokenizer; a longer one is cut between lines.
    """

    messages: list[dict[str, Any]]
    max_tokens: int


Summarise = Callable[[list[SummaryRequest]], Sequence[str]]
"""Gets a batch of requests; returns a text for each, in their order. An empty one stands for no summary."""


@dataclass(frozen=True)
class Summariser:
    """A callable with the folder that keeps what it wrote.

    An answer lies in the file that the core looks for: the SHA-256 of its request, as `ab/cdef...`. What a callable
    would say of a request is taken to be always the same: another callable, or another prompt, wants another folder.
    """

    summarise: Summarise
    folder: Path

    def answer(self, asked: Sequence[tuple[str, str]]) -> None:
        """Has those of the requests written that the folder has no answer to.

        Raises:
            OptionsError: The callable did not return a text for each request.
        """
        wanted = {key: text for key, text in asked if not self._path(key).exists()}
        if not wanted:
            return
        texts = self.summarise([SummaryRequest(**json.loads(text)) for text in wanted.values()])
        are_texts = not isinstance(texts, str) and all(isinstance(text, str) for text in texts)
        if not are_texts or len(texts) != len(wanted):
            raise OptionsError(
                f"the callable for summaries got {len(wanted)} requests; expected as many texts, found "
                f"{len(texts) if are_texts else repr(texts)[:80]}"
            )
        for key, text in zip(wanted, texts, strict=True):
            self._write(self._path(key), text)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may look for it: there is all of it, or nothing.
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def with_summariser(options: dict[str, object]) -> tuple[CompileOptions, Summariser | None]:
    """Takes options of which `summary` may be a callable.

    Raises:
        OptionsError: An option that does not exist; a callable without a folder.
    """
    summary = options.get("summary")
    if not callable(summary):
        return CompileOptions.of(options), None
    folder = options.get("summary_cache")
    if not isinstance(folder, str | os.PathLike):
        raise OptionsError(
            "`summary` is a callable, and `summary_cache` names no folder\n"
            "hint: the folder keeps what was written, so that it is asked for once"
        )
    return CompileOptions.of({**options, "summary": "cache"}), Summariser(summary, Path(folder))


def missing_summaries(asked: Sequence[tuple[str, str]]) -> OptionsError:
    """What is wrong where nobody is there to answer."""
    return OptionsError(
        f"the summary cache lacks {len(asked)} of the summaries\nhint: hand over the callable as `summary`"
    )
