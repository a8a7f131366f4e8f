from collections.abc import Callable
from os import PathLike
from typing import TypeAlias, final

__version__: str
OPTIMISED: bool
PROFILED: bool
__all__ = [
    "OPTIMISED",
    "PROFILED",
    "Renderer",
    "__version__",
    "ask_summaries",
    "check",
    "compile",
    "confirm",
    "convert",
    "drift",
    "explain",
    "formats",
    "pack_lengths",
    "repack",
    "verify",
    "verify_tokenizer",
]

_Progress: TypeAlias = Callable[[int, int | None, int, int, int], None]

def compile(options: str, progress: _Progress | None = None) -> str: ...  # noqa: A001
def check(options: str, progress: _Progress | None = None) -> str: ...
def ask_summaries(
    options: str, ask: Callable[[list[tuple[str, str]]], None], batch: int, progress: _Progress | None = None
) -> None: ...
def convert(options: str, to: str, preferences: bool, progress: _Progress | None = None) -> str: ...
def formats() -> list[str]: ...
def verify(folder: str | PathLike[str]) -> str: ...
def confirm(
    folder: str | PathLike[str], sources: list[str], scratch: str | PathLike[str], progress: _Progress | None = None
) -> str: ...
def verify_tokenizer(tokenizer: str, strings: int, whole: bool) -> str: ...
def repack(options: str) -> str: ...
def pack_lengths(packing: str, lengths: list[int], max_length: int) -> list[list[int]]: ...
def drift(folder: str | PathLike[str], tokenizer: str | None = None, chat_template: str | None = None) -> str: ...
def explain(code: str | None = None) -> str | None: ...

@final
class Renderer:
    def __new__(cls, options: str) -> Renderer: ...
    def render(self, record: bytes) -> str: ...
    def render_file(self, path: str | PathLike[str], number: int, dialogue: int = 1) -> str: ...
    def window(self, record: bytes, room: int) -> str: ...
