"""What a person sees while the demonstration runs."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cordon.demo.scoreboard import STOPPED, Campaign, Scoreboard, Truth
from stream.replay.http_client import Response
from stream.replay.item import Item

REFRESH_S = 0.5
RECENT = 2_000


@dataclass(slots=True)
class Tally:
    """Answers as they come. `latencies_ms`: of every decision, from the moment at which it was due."""

    truth: dict[str, Truth]
    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    saved: int = 0
    lost: int = 0
    caught: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    started_s: float = field(default_factory=time.monotonic)

    def add(self, item: Item, response: Response, latency_s: float) -> None:
        """Count one answer."""
        if item.kind != "transaction":
            return
        self.statuses[response.status] += 1
        if response.status != 200:
            return
        self.latencies_ms.append(latency_s * 1000)
        self.recent_ms.append(latency_s * 1000)
        outcome = msgspec.json.decode(response.body)["outcome"]
        self.outcomes[outcome] += 1
        known = self.truth[item.id]
        if known.fraud:
            stopped = outcome in STOPPED
            self.attacks[str(known.kind)] += 1
            self.caught[str(known.kind)] += stopped
            if stopped:
                self.saved += known.amount
            else:
                self.lost += known.amount

    @property
    def p99_ms(self) -> float:
        """99th percentile of all latencies."""
        return round(float(np.percentile(self.latencies_ms, 99)), 2) if self.latencies_ms else 0.0


class Screen:
    """A table that follows the tally; on something that is no terminal, a line every few seconds."""

    def __init__(self, tally: Tally, freshness_ms: Callable[[], int | None]) -> None:
        self._tally = tally
        self._freshness_ms = freshness_ms
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown_s = 0.0
        self._counted = 0

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        self._console.print(self._table(self._rate()))

    def answered(self, item: Item, response: Response, latency_s: float) -> None:
        """Take one answer; redraw now and then."""
        self._tally.add(item, response, latency_s)
        now_s = time.monotonic()
        if now_s - self._shown_s < (REFRESH_S if self._console.is_terminal else 10.0):
            return
        rate = self._rate(now_s)
        self._shown_s, self._counted = now_s, len(self._tally.latencies_ms)
        if self._console.is_terminal:
            self._live.update(self._table(rate), refresh=True)
        else:
            done, p99 = len(self._tally.latencies_ms), self._tally.p99_ms
            self._console.print(
                f"{done} decided, {rate:.0f}/s, p99 {p99:.1f} ms, {dict(self._tally.outcomes)}"
            )

    def _rate(self, now_s: float | None = None) -> float:
        elapsed = (now_s or time.monotonic()) - (self._shown_s or self._tally.started_s)
        return (len(self._tally.latencies_ms) - self._counted) / max(elapsed, 0.001)

    def _table(self, rate: float) -> Table:
        tally = self._tally
        recent = np.percentile(list(tally.recent_ms) or [0.0], [50, 99])
        table = Table(title="Cordon decides", title_justify="left", show_header=False, box=None)
        table.add_row("decided", f"{len(tally.latencies_ms)}   ({rate:.0f}/s)")
        table.add_row("latency", f"p50 {recent[0]:.1f} ms   p99 {recent[1]:.1f} ms")
        lag = self._freshness_ms()
        table.add_row("Flink is behind by", "-" if lag is None else f"{lag} ms")
        table.add_row("outcomes", "   ".join(f"{k} {v}" for k, v in tally.outcomes.most_common()))
        table.add_row("fraud", f"stopped {tally.saved / 100:,.2f}   let through {tally.lost / 100:,.2f}")
        for kind, total in sorted(tally.attacks.items()):
            table.add_row(f"  {kind}", f"{tally.caught[kind]} of {total}")
        return table


def show_campaigns(console: Console, board: Scoreboard) -> None:
    """The scoreboard, campaign kind by campaign kind."""
    table = Table(title="Attack campaigns", title_justify="left", box=None)
    for heading in ("kind", "campaigns", "missed", "transactions", "caught", "first stop after", "lost"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for campaign in board.campaigns:
        table.add_row(*_cells(campaign))
    console.print(table)
    console.print(
        f"precision {board.precision:.1%}, recall after the first {board.recall:.1%}; "
        f"rules alone {board.rules_precision:.1%} and {board.rules_recall:.1%}; "
        f"{board.good_stopped} good transactions stopped"
    )


def _cells(campaign: Campaign) -> tuple[str, ...]:
    found = campaign.as_json()
    first = found["first_block_s"]
    return (
        campaign.kind,
        str(campaign.campaigns),
        str(campaign.missed),
        str(campaign.transactions),
        str(campaign.caught),
        "never" if first is None else f"{first:.0f} s",
        f"{found['lost_money']:,.2f}",
    )
