"""The waterfall of an explanation as SVG: from the base value, feature by feature, to the margin.

    base value   |--------|
    amount                |======>            pushes up
    device new                  <=====|       pushes down
    margin       |--------------|

Drawn from an explanation document; the strongest contributions by themselves, the others in one bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from typing import Any, Final

BARS_MAX: Final = 10
WIDTH: Final = 920
LEFT: Final = 330
RIGHT: Final = 90
ROW: Final = 30
TOP: Final = 76
UP, DOWN, TOTAL = "#c0392b", "#2471a3", "#566573"
INK, PALE = "#1c2833", "#d5d8dc"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: where it starts and ends, in log-odds. `is_total`: base value or margin."""

    label: str
    start: float
    end: float
    is_total: bool = False

    @property
    def colour(self) -> str:
        """Red pushes towards fraud."""
        return TOTAL if self.is_total else UP if self.end >= self.start else DOWN


def bars(model: Mapping[str, Any], others: str, base: str, margin: str) -> list[Bar]:
    """Rows of `model`, an explanation's part of the model; the strongest first, then the rest in one."""
    ordered = sorted(model["contributions"], key=lambda c: -abs(c["contribution"]))
    at = float(model["base_value"])
    found = [Bar(base, 0.0, at, True)]
    for item in ordered[:BARS_MAX]:
        step = float(item["contribution"])
        found.append(Bar(_label(item), at, at + step))
        at += step
    end = float(model["margin"])
    if abs(end - at) > 1e-9:
        found.append(Bar(others, at, end))
    return [*found, Bar(margin, 0.0, end, True)]


def svg(document: Mapping[str, Any], language: str = "en") -> str:
    """The picture of an explanation that has a model's part."""
    title, others, base, margin, unit = _WORDS[language]
    rows = bars(document["model"], others, base, margin)
    low = min(0.0, *(min(b.start, b.end) for b in rows))
    high = max(0.0, *(max(b.start, b.end) for b in rows))
    pad = (high - low or 1.0) * 0.04
    low, high = low - pad, high + pad
    height = TOP + ROW * len(rows) + 44

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" font-size="13"'
        ' font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
        f"<title>{escape(title)} {escape(str(document['transaction_id']))}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(24, 32, f"{title} {document['transaction_id']}", size=17, weight="bold"),
        _text(24, 54, f"{document['outcome']} · {document['model']['version']}", colour=TOTAL),
        *_axis(low, high, x, height, unit),
    ]
    for number, bar in enumerate(rows):
        parts += _row(bar, number, x, is_last=number == len(rows) - 1)
    return "\n".join([*parts, "</svg>", ""])


def _row(bar: Bar, number: int, x: Any, *, is_last: bool) -> list[str]:
    top = TOP + ROW * number
    left, right = sorted((x(bar.start), x(bar.end)))
    value = bar.end if bar.is_total else bar.end - bar.start
    shown = f"{value:.3f}" if bar.is_total else f"{value:+.3f}"
    found = [
        _text(
            LEFT - 12, top + 19, _short(bar.label), anchor="end", weight="bold" if bar.is_total else "normal"
        ),
        f'<rect x="{left:.1f}" y="{top + 5}" width="{max(1.0, right - left):.1f}" height="{ROW - 10}"'
        f' fill="{bar.colour}"/>',
        _text(right + 6, top + 19, shown, colour=bar.colour),
    ]
    if not is_last:
        found.append(
            f'<line x1="{x(bar.end):.1f}" y1="{top + ROW - 5}" x2="{x(bar.end):.1f}" y2="{top + ROW + 5}"'
            f' stroke="{TOTAL}" stroke-width="1"/>'
        )
    return found


def _axis(low: float, high: float, x: Any, height: int, unit: str) -> list[str]:
    bottom = height - 40
    found = [_text(WIDTH - 24, height - 12, unit, anchor="end", colour=TOTAL)]
    for tick in ticks(low, high):
        strong = "1.5" if tick == 0 else "0.7"
        found += [
            f'<line x1="{x(tick):.1f}" y1="{TOP - 4}" x2="{x(tick):.1f}" y2="{bottom}" stroke="{PALE}"'
            f' stroke-width="{strong}"/>',
            _text(x(tick), bottom + 14, f"{tick:g}", anchor="middle", colour=TOTAL, size=11),
        ]
    return found


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, four to nine of them."""
    span = high - low
    step = 10.0 ** floor(log10(span))
    while span / step < 4:
        step /= 2
    first = -floor(-low / step)
    return [round(n * step, 10) + 0.0 for n in range(first, floor(high / step) + 1)]


def _label(item: Mapping[str, Any]) -> str:
    value = item["value"]
    if value is None:
        return f"{item['feature']} = –"
    return (
        f"{item['feature']} = {value:,.0f}"
        if float(value).is_integer()
        else f"{item['feature']} = {value:.4g}"
    )


def _short(label: str, length_max: int = 46) -> str:
    return label if len(label) <= length_max else f"{label[: length_max - 1]}…"


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = INK,
    size: int = 13,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )


_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "en": ("Why", "all other features", "base value", "margin", "log-odds of fraud"),
    "de": ("Warum", "alle übrigen Merkmale", "Grundwert", "Ergebnis", "Log-Quote des Betrugs"),
}
