from collections.abc import Callable
from os import PathLike
from typing import TypeAlias, final

__version__: str
OPTIMISED: bool
__all__ = ["OPTIMISED", "Renderer", "__version__", "check", "compile", "explain", "verify"]

_Progress: TypeAlias = Callable[[int, int | None, int, int, int], None]

def compile(options: str, progress: _Progress | None = None) -> str: ...  # noqa: A001
def check(options: str, progress: _Progress | None = None) -> str: ...
def verify(folder: str | PathLike[str]) -> str: ...
def explain(code: str | None = None) -> str | None: ...

@final
class Renderer:
    def __new__(cls, options: str) -> Renderer: ...
    def render(self, record: bytes) -> str: ...
    def render_file(self, path: str | PathLike[str], number: int) -> str: ...
