"""What goes wrong with a run. What is wrong with the data is a diagnostic, and never raised.

Where Python has an exception of its own (a missing file, a permission), that is raised instead.
"""

from __future__ import annotations


class DlgcError(Exception):
    """Something went wrong with the run; the base of all others."""


class OptionsError(DlgcError, ValueError):
    """An option, or a combination of options, that makes no sense."""


class TemplateError(DlgcError):
    """The chat template cannot be read or used."""


class TokenizerError(DlgcError):
    """The tokenizer cannot be read or used."""


class ShardError(DlgcError):
    """A folder that is no dataset, or not a sound one, or must not be overwritten."""


class RejectedError(DlgcError):
    """A dialogue that was to be rendered came to nothing.

    Attributes:
        diagnostics: Everything found, errors among them.
    """

    def __init__(self, message: str, diagnostics: list[dict[str, object]]) -> None:
        """Takes the message and the findings."""
        super().__init__(message)
        self.diagnostics = diagnostics
