"""Draws what a command prints on a terminal as an SVG: `dlgc … --color always | python scripts/picture.py TITLE`.

Knows the few codes that dlgc paints with. Lines are wrapped as a terminal of `COLUMNS` would.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from itertools import groupby
from xml.sax.saxutils import escape

COLUMNS = 108
WIDTH, HEIGHT, MARGIN = 7.9, 18, 18
"""Of a letter, of a line, and around them, in pixels."""
STYLES = {"31": "r", "32": "g", "33": "y", "36": "c", "1": "b", "2": "d"}
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d1d7e0; }}
.r {{ fill: #ff6b63; }} .g {{ fill: #4ac26b; }} .y {{ fill: #d4a72c; }} .c {{ fill: #6cb6ff; }}
.b {{ font-weight: bold; }} .d {{ fill: #57606a; }} .t {{ fill: #9198a1; }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
"""


def svg(text: str, title: str) -> str:
    """Returns the picture of a text with ANSI codes, its title on top."""
    lines = [[(letter, "t") for letter in title], [], *_lines(text.rstrip("\n"))]
    width = COLUMNS * WIDTH + 2 * MARGIN
    drawn = [HEAD.format(width=width, height=len(lines) * HEIGHT + 2 * MARGIN)]
    for number, line in enumerate(lines):
        runs = groupby(line, key=lambda pair: pair[1])
        spans = [_span("".join(letter for letter, _ in run), style) for style, run in runs]
        top = MARGIN + number * HEIGHT + 13
        drawn.append(f'<text x="{MARGIN}" y="{top}" xml:space="preserve">{"".join(spans)}</text>\n' if line else "")
    return "".join([*drawn, "</svg>\n"])


def _span(text: str, style: str) -> str:
    return f'<tspan class="{style}">{escape(text)}</tspan>' if style else escape(text)


def _lines(text: str) -> list[list[tuple[str, str]]]:
    """Letters with their styles, line by line."""
    lines: list[list[tuple[str, str]]] = [[]]
    styles: list[str] = []
    column = 0
    for code, letter in re.findall(r"\x1b\[([0-9;]*)m|([\s\S])", text):
        if not letter:
            styles = [*styles, STYLES[code]] if code not in ("", "0") else []
            continue
        wide = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if letter == "\n" or column + wide > COLUMNS:
            lines.append([])
            column = 0
        if letter != "\n":
            # What is dim is nothing else.
            lines[-1].append((letter, "d" if "d" in styles else " ".join(styles)))
            column += wide
    return lines


if __name__ == "__main__":
    sys.stdout.write(svg(sys.stdin.read(), sys.argv[1]))
