"""Lines over time as an SVG: panels in columns and rows, those of a row with the same scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 380, 150
"""Of one panel, in pixels; around it there is room for words."""
LEFT, TOP, GAP, UNDER = 64, 70, 40, 44
COLOURS = ("#2f6fab", "#d9730d", "#b03a48", "#4a8a4a")

Points = Sequence[tuple[float, float]]


class Panel(msgspec.Struct, frozen=True):
    """What one panel shows: lines by name, in seconds and the row's unit, and remarks at moments."""

    lines: Mapping[str, Points]
    notes: Sequence[tuple[float, str]] = ()


class Row(msgspec.Struct, frozen=True):
    """Panels side by side. `level` is a dashed line across, with its word."""

    title: str
    panels: Sequence[Panel]
    level: tuple[float, str] | None = None


def chart(title: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    """The whole picture. Lines of the same name have the same colour everywhere."""
    names = list(dict.fromkeys(name for row in rows for panel in row.panels for name in panel.lines))
    colours = dict(zip(names, COLOURS, strict=False))
    if len(names) > len(COLOURS):
        raise ValueError(f"lines: {len(names)} names, at most {len(COLOURS)} have a colour: leave some out")
    end_s = max(at for row in rows for panel in row.panels for points in panel.lines.values() for at, _ in points)
    width = LEFT + len(columns) * (WIDTH + GAP)
    height = TOP + len(rows) * (HEIGHT + UNDER) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 22, title, 'font-size="16" font-weight="bold"'),
    ]
    for number, name in enumerate(names):
        x = LEFT + 150 * number
        parts.append(f'<rect x="{x}" y="33" width="18" height="4" fill="{colours[name]}"/>')
        parts.append(_text(x + 24, 40, name))
    for number, heading in enumerate(columns):
        parts.append(_text(LEFT + number * (WIDTH + GAP), TOP - 8, heading, 'font-weight="bold"'))
    for index, row in enumerate(rows):
        y = TOP + index * (HEIGHT + UNDER)
        top = _round_up(max(value for panel in row.panels for line in panel.lines.values() for _, value in line))
        for column, panel in enumerate(row.panels):
            parts += _panel(LEFT + column * (WIDTH + GAP), y, panel, row, (end_s, top), colours)
    return "\n".join([*parts, "</svg>", ""])


def _panel(x: int, y: int, panel: Panel, row: Row, most: tuple[float, float], colours: Mapping[str, str]) -> list[str]:
    end_s, top = most

    def at(moment_s: float, value: float) -> tuple[float, float]:
        return round(x + WIDTH * moment_s / end_s, 1), round(y + HEIGHT * (1 - value / top), 1)

    parts = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" fill="#f4f6f8" stroke="#b6c2cc"/>']
    parts.append(_text(x + 4, y + 14, row.title, 'fill="#51616e"'))
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(x - 6, at(0, share * top)[1] + 4, f"{share * top:g}", 'text-anchor="end" font-size="10"'))
    for share in (0.0, 0.5, 1.0):
        where = f'text-anchor="{"start" if not share else "end" if share == 1 else "middle"}" font-size="10"'
        parts.append(_text(x + WIDTH * share, y + HEIGHT + 13, f"{share * end_s:.3g} s", where))
    if row.level is not None:
        level_y = at(0, row.level[0])[1]
        line = f'<line x1="{x}" y1="{level_y}" x2="{x + WIDTH}" y2="{level_y}" stroke="#51616e" '
        parts.append(line + 'stroke-dasharray="4 3"/>')
        where = 'text-anchor="end" font-size="10" fill="#51616e"'
        parts.append(_text(x + WIDTH - 4, level_y - 3, row.level[1], where))
    for name, points in panel.lines.items():
        path = " ".join(f"{a},{b}" for a, b in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
    for moment_s, note in panel.notes:
        note_x = at(moment_s, 0)[0]
        parts.append(f'<line x1="{note_x}" y1="{y + 20}" x2="{note_x}" y2="{y + HEIGHT}" stroke="#b6c2cc"/>')
        parts.append(_text(note_x + 3, y + 30, note, 'font-size="10" fill="#51616e"'))
    return parts


def _text(x: float, y: float, text: str, more: str = "") -> str:
    colour = "" if "fill=" in more else 'fill="#22303c" '
    return f'<text x="{x:g}" y="{y:g}" {colour}{more}>{escape(text)}</text>'


def _round_up(value: float) -> float:
    """A round number that is not below it."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    while scale > value > 0:
        scale /= 10
    return next(scale * step for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if scale * step >= value)
