"""A backtest as a table that a person reads; the JSON object has all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from api.outcome import Outcome
from api.tally import CENSORED, FRAUD, GOOD, OPEN, Backtest, RuleTally, Tally

HEADINGS: Final = (
    "rule", "action", "hits", "a day", "fraud caught", "of it new", "good hit", "precision", "open",
    "censored", "us", "beside",
)  # fmt: skip


def table_of(found: Backtest, minor_digits: int) -> str:
    """Rules, then outcomes before and after, then warnings. Money in the base currency."""

    def money(tally: Tally, truth: int) -> str:
        return f"{int(tally.money[truth]) / 10**minor_digits:,.{minor_digits}f}"

    rules = [HEADINGS, *(_row(tally, found.days, money) for tally in found.rules)]
    outcomes = [("outcome", "decisions", "then", "fraud money", "then", "good money", "then")]
    for outcome in Outcome:
        then, now = found.before[outcome], found.after[outcome]
        counts = f"{int(now.count.sum()):,}", f"{int(then.count.sum()):,}"
        kinds = (money(now, FRAUD), money(then, FRAUD), money(now, GOOD), money(then, GOOD))
        outcomes.append((outcome.word, *counts, *kinds))
    reviews = found.to_json()["reviews_per_day"]
    lines = [
        f"{found.draft}: {found.decisions:,} decisions of {found.days:.1f} days,"
        f" {found.changed:,} would differ",
        "",
        *_aligned(rules),
        "",
        *_aligned(outcomes),
        "",
        f"reviews a day: {reviews['after']:,.1f}, then {reviews['before']:,.1f}",
        "fraud caught, good hit: money of what was fraud, of what was none; new: treated milder then",
        "open: too young for a label; censored: declined then, nobody knows; beside: rules that counted too",
        *(f"warning: {warning}" for warning in found.warnings()),
    ]
    return "\n".join(lines)


def _row(tally: RuleTally, days: float, money: Callable[[Tally, int], str]) -> tuple[str, ...]:
    shown = tally.to_json(days)
    beside = ", ".join(f"{name} {count}" for name, count in tally.beside.most_common(2))
    precision = shown["precision"]
    return (
        tally.rule.id if tally.rule.mode == "live" else f"{tally.rule.id} ({tally.rule.mode})",
        tally.rule.action,
        f"{shown['hits']:,}",
        f"{shown['hits_per_day']:,.1f}",
        money(tally.hits, FRAUD),
        money(tally.new, FRAUD),
        money(tally.hits, GOOD),
        "" if precision is None else f"{precision:.0%}",
        f"{int(tally.hits.count[OPEN]):,}",
        f"{int(tally.hits.count[CENSORED]):,}",
        f"{tally.cost_us:.2f}",
        beside,
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Words to the left, figures to the right; the last column as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if _figure(rows, place) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _figure(rows: Sequence[tuple[str, ...]], place: int) -> bool:
    return any(row[place][:1].isdigit() for row in rows[1:])
