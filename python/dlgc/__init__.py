"""dlgc, the dialogue compiler: multi-turn dialogues to training rows that are provably right.

import dlgc
report = dlgc.compile("raw/", "shards/", tokenizer="models/qwen3")
dlgc.scan("shards/")   # a Polars LazyFrame
dlgc.open("shards/")   # a datasets.Dataset, mapped into memory
"""

from __future__ import annotations

import warnings

from dlgc._dlgc import OPTIMISED, __version__
from dlgc.api import (
    Confirmation,
    Drift,
    Rendered,
    RenderedAnswers,
    RenderedRow,
    RenderedWindow,
    Report,
    Span,
    Verdict,
    Window,
    check,
    compile,  # noqa: A004
    convert,
    drift,
    render,
    repack,
    verify,
    verify_tokenizer,
    window,
)
from dlgc.exceptions import DlgcError, OptionsError, RejectedError, ShardError, TemplateError, TokenizerError
from dlgc.options import CompileOptions
from dlgc.shards import manifest, scan, scan_dialogues
from dlgc.shards import open_ as open  # noqa: A004
from dlgc.summaries import SummaryRequest

if not OPTIMISED:
    warnings.warn("dlgc was built without optimisation; timings mean nothing", RuntimeWarning, stacklevel=2)

__all__ = [
    "CompileOptions",
    "Confirmation",
    "DlgcError",
    "Drift",
    "OptionsError",
    "RejectedError",
    "Rendered",
    "RenderedAnswers",
    "RenderedRow",
    "RenderedWindow",
    "Report",
    "ShardError",
    "Span",
    "SummaryRequest",
    "TemplateError",
    "TokenizerError",
    "Verdict",
    "Window",
    "__version__",
    "check",
    "compile",
    "convert",
    "drift",
    "manifest",
    "open",
    "render",
    "repack",
    "scan",
    "scan_dialogues",
    "verify",
    "verify_tokenizer",
    "window",
]
