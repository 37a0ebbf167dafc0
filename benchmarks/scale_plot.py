"""A small plot of a few curves as SVG, without a library: two axes from 0, points, lines, a legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 60
COLOURS = ("#2f6fab", "#c78a1b", "#4a8a4a", "#8a4a6d")
TICKS = 5
"""About so many on each axis."""


class Curve(NamedTuple):
    """A name and its points, in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def step_of(most: float) -> float:
    """A round distance between ticks: 1, 2 or 5 times a power of ten."""
    rough = most / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def plot(curves: Sequence[Curve], x_name: str, y_name: str) -> str:
    """The SVG. Raises ValueError when there is no point, or none above 0."""
    points = [point for curve in curves for point in curve.points]
    most = [max((point[axis] for point in points), default=0) for axis in (0, 1)]
    if min(most) <= 0:
        raise ValueError("plot: there is no point above 0 to draw")
    steps = [step_of(value) for value in most]
    ends = [math.ceil(value / step - 1e-9) * step for value, step in zip(most, steps, strict=True)]

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / ends[0] * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - y / ends[1] * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for n in range(round(ends[0] / steps[0]) + 1):
        x, y = at(n * steps[0], 0)
        lines.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{y}" stroke="#e3e8ec"/>')
        lines.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{n * steps[0]:,.10g}</text>')
    for n in range(round(ends[1] / steps[1]) + 1):
        x, y = at(0, n * steps[1])
        lines.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#e3e8ec"/>')
        lines.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{n * steps[1]:,.10g}</text>')
    middle = HEIGHT / 2 - 20
    lines.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">{escape(x_name)}</text>')
    lines.append(
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{escape(y_name)}</text>'
    )
    for number, curve in enumerate(curves):
        lines += _curve(curve, COLOURS[number % len(COLOURS)], TOP + 16 + 20 * number, [at(*p) for p in curve.points])
    return "\n".join([*lines, "</svg>", ""])


def _curve(curve: Curve, colour: str, legend_y: int, places: Sequence[tuple[float, float]]) -> Iterator[str]:
    path = " ".join(f"{x},{y}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    yield f'<circle cx="{LEFT + 16}" cy="{legend_y}" r="4" fill="{colour}"/>'
    yield f'<text x="{LEFT + 28}" y="{legend_y + 4}">{escape(curve.name)}</text>'
