"""`python -m dlgc` is `dlgc`."""

from __future__ import annotations

import sys

from dlgc.cli import main

sys.exit(main())
