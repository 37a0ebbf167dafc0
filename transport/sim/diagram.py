"""Sequence diagrams of a story: as Mermaid, and as an SVG picture that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mesos_actor.transport.sim.schedule import START_US
from mesos_actor.transport.sim.story import Told

MAX_ARROWS = 150
"""The newest so many; more is no picture any more."""
_LANE, _ROW, _TOP, _LEFT = 210, 26, 60, 110


def _lanes(told: Sequence[Told]) -> list[str]:
    seen: dict[str, None] = {}
    for one in told:
        seen.setdefault(one.source)
        seen.setdefault(one.target)
    return sorted(seen)


def mermaid(told: Sequence[Told]) -> str:
    """A `sequenceDiagram`."""
    told = told[-MAX_ARROWS:]
    lines = ["sequenceDiagram"]
    lines += [f"    participant {lane}" for lane in _lanes(told)]
    for one in told:
        text = _plain(f"{(one.time_us - START_US) / 1e6:.6f} {one.text}")
        if one.source == one.target:
            lines.append(f"    Note over {one.source}: {text}")
        else:
            lines.append(f"    {one.source}->>{one.target}: {text}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without what Mermaid reads as its own."""
    return "".join("," if c == ";" else c if c.isprintable() and c not in "#<>{}" else " " for c in text)


def svg(told: Sequence[Told]) -> str:
    """A picture: one lane a host, time downwards, faults in red."""
    told = told[-MAX_ARROWS:]
    lanes = {lane: _LEFT + _LANE // 2 + _LANE * place for place, lane in enumerate(_lanes(told))}
    width, height = _LEFT + _LANE * max(1, len(lanes)) + 20, _TOP + _ROW * (len(told) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="monospace" '
        'font-size="11">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
        '<path d="M0,0 L7,3 L0,6 z" fill="#225"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for lane, x in lanes.items():
        parts.append(f'<text x="{x}" y="24" text-anchor="middle" font-weight="bold">{escape(lane)}</text>')
        parts.append(f'<line x1="{x}" y1="34" x2="{x}" y2="{height - 10}" stroke="#bbb" stroke-dasharray="3,3"/>')
    for row, one in enumerate(told):
        parts += _row(one, lanes, _TOP + _ROW * row)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(one: Told, lanes: dict[str, int], y: int) -> list[str]:
    time = f'<text x="4" y="{y}" fill="#666">{(one.time_us - START_US) / 1e6:.6f}</text>'
    colour = "#b00" if one.fault else "#225"
    text = escape(one.text if len(one.text) <= 60 else f"{one.text[:59]}…")
    begin, end = lanes[one.source], lanes[one.target]
    if begin == end:
        dot = f'<circle cx="{begin}" cy="{y - 4}" r="4" fill="{colour}"/>'
        return [time, dot, f'<text x="{begin + 8}" y="{y}" fill="{colour}">{text}</text>']
    line = f'<line x1="{begin}" y1="{y}" x2="{end}" y2="{y}" stroke="{colour}" marker-end="url(#tip)"/>'
    middle = (begin + end) // 2
    return [time, line, f'<text x="{middle}" y="{y - 4}" text-anchor="middle" fill="{colour}">{text}</text>']
