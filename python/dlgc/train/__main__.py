"""`python -m dlgc.train`: reads the command line, trains, and says in words what went wrong."""

from __future__ import annotations

import sys
import warnings

from dlgc.exceptions import DlgcError
from dlgc.train.options import HELP, Options, from_command_line


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0, or 2 where the run failed."""
    if not argv or {"-h", "--help"} & set(argv):
        (sys.stdout if argv else sys.stderr).write(HELP)
        return 0 if argv else 2
    # TRL uses the old names itself, and nobody who runs the command can do anything about it.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        options = Options.of(from_command_line(argv))
        from dlgc.train.run import leave, run

        run(options)
        leave()
    except (DlgcError, ImportError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
