"""Two small SVG plots, without a plotting library. Pure.

The colours suit light and dark pages and red-green colour blindness.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain

from supervisor.bench.figures import percentile

WIDTH, HEIGHT, MARGIN, GAP = 300, 180, 46, 26
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
N_POINTS = 101
GRID = (0, 0.5, 1)

BAR, ROW = 14, 24
LABELS = 240


def percentile_curves(title: str, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A panel for each measure: seconds over percentile, a curve for each named set of values."""
    full = [(name, {k: sorted(v) for k, v in sets.items() if v}) for name, sets in panels.items()]
    full = [(name, sets) for name, sets in full if sets]
    labels = list(dict.fromkeys(chain.from_iterable(sets for _, sets in full)))
    width = len(full) * (WIDTH + MARGIN + GAP) + GAP
    parts = [_text(GAP, 20, title, size=14), *_legend(labels, GAP, 38)]
    for number, (name, sets) in enumerate(full):
        left = GAP + MARGIN + number * (WIDTH + MARGIN + GAP)
        parts += _panel(name, sets, labels, left, 70)
    return _svg(width, HEIGHT + 110, parts)


def ratio_bars(title: str, ratios: Mapping[str, float]) -> str:
    """A bar for each ratio, next to a line at 1. Longer is better."""
    longest = max([1.0, *ratios.values()]) * 1.1
    scale = WIDTH / longest
    height = 50 + ROW * len(ratios)
    one = LABELS + scale
    parts = [_text(GAP, 20, title, size=14)]
    for number, (name, ratio) in enumerate(ratios.items()):
        top = 40 + ROW * number
        colour = COLOURS[0] if ratio >= 1 else COLOURS[1]
        parts.append(_text(LABELS - 8, top + BAR - 3, name, anchor="end"))
        parts.append(
            f'<rect x="{LABELS}" y="{top}" width="{ratio * scale:.1f}" height="{BAR}"'
            f' fill="{colour}"/>'
        )
        parts.append(_text(LABELS + ratio * scale + 6, top + BAR - 3, f"{ratio:.2f}×"))
    parts.append(_line(one, 34, one, height - 6, dashed=True))
    return _svg(LABELS + WIDTH + 70, height, parts)


def _panel(
    name: str, sets: Mapping[str, list[float]], labels: list[str], left: float, top: float
) -> list[str]:
    highest = max(values[-1] for values in sets.values()) or 1.0
    parts = [_text(left, top - 8, name)]
    for share in GRID:
        y = top + HEIGHT * (1 - share)
        parts.append(_line(left, y, left + WIDTH, y))
        parts.append(_text(left - 6, y + 4, _seconds(highest * share), anchor="end"))
        parts.append(
            _text(left + WIDTH * share, top + HEIGHT + 16, f"p{share * 100:.0f}", anchor="middle")
        )
    for label, values in sets.items():
        points = " ".join(
            f"{left + WIDTH * i / (N_POINTS - 1):.1f},"
            f"{top + HEIGHT * (1 - percentile(values, i * 100 / (N_POINTS - 1)) / highest):.1f}"
            for i in range(N_POINTS)
        )
        colour = COLOURS[labels.index(label) % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    return parts


def _legend(labels: list[str], x: float, y: float) -> list[str]:
    parts = []
    for number, label in enumerate(labels):
        left = x + 160 * number
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{left}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(left + 16, y, label))
    return parts


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _line(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> str:
    style = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#8888"{style}/>'


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _svg(width: float, height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" fill="#777">'
    )
    return "\n".join([head, *parts, "</svg>\n"])
