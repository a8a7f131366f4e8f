"""The loss as a picture: an SVG beside the model, and a line of blocks for the terminal."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Points = list[tuple[float, float]]

WIDTH, HEIGHT, MARGIN = 640, 320, 48
"""Of the picture, and around the curves, in pixels."""
TICKS = 4
BLOCKS = "▁▂▃▄▅▆▇█"
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 12px system-ui, sans-serif; fill: #57606a; }} path {{ fill: none; stroke-width: 2; }}
.loss {{ stroke: #0969da; fill: none; }} .eval_loss {{ stroke: #bc4c00; fill: none; }} .grid {{ stroke: #d0d7de; }}
</style>
<rect width="100%" height="100%" fill="#ffffff"/>
"""


def curves(history: Iterable[Mapping[str, float]]) -> dict[str, Points]:
    """Returns what a trainer logged, step by step: `loss`, and `eval_loss` where it evaluated."""
    entries = list(history)
    found = {name: [(float(e["step"]), float(e[name])) for e in entries if name in e] for name in ("loss", "eval_loss")}
    return {name: points for name, points in found.items() if points}


def svg(found: Mapping[str, Points], title: str) -> str:
    """Returns the picture of curves over the same steps."""
    every = [point for points in found.values() for point in points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    wide, tall = max(right - left, 1.0), max(high - low, 1e-9)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = MARGIN + (point[0] - left) / wide * (WIDTH - 2 * MARGIN)
        return round(x, 1), round(MARGIN + (high - point[1]) / tall * (HEIGHT - 2 * MARGIN), 1)

    drawn = [HEAD.format(width=WIDTH, height=HEIGHT), f'<text x="{MARGIN}" y="24">{escape(title)}</text>\n']
    for tick in range(TICKS + 1):
        value = low + tall * tick / TICKS
        _, y = place((left, value))
        drawn.append(
            f'<path class="grid" d="M{MARGIN} {y} H{WIDTH - MARGIN}"/><text x="4" y="{y + 4}">{value:.3g}</text>\n'
        )
    for number, (name, points) in enumerate(found.items()):
        places = [place(point) for point in points]
        line = " L".join(f"{x} {y}" for x, y in places)
        dots = "".join(f'<circle class="{name}" cx="{x}" cy="{y}" r="2"/>' for x, y in places)
        drawn.append(f'<path class="{name}" d="M{line}"/>{dots}\n')
        x = WIDTH - MARGIN - 90 * (number + 1)
        drawn.append(f'<path class="{name}" d="M{x} 20 h16"/><text x="{x + 20}" y="24">{name}</text>\n')
    foot = f'<text x="{MARGIN}" y="{HEIGHT - 16}">step {left:g}</text>'
    return "".join([*drawn, foot, f'<text x="{WIDTH - MARGIN - 40}" y="{HEIGHT - 16}">{right:g}</text>\n</svg>\n'])


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Returns values as blocks, the mean of neighbours where there are more than `width`."""
    count = min(len(values), width)
    borders = [len(values) * place // count for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(borders)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)
