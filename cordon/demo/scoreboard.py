"""What a replayed stream's decisions were worth, against the truth that the history knows."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

STOPPED = ("challenge", "review", "decline")


@dataclass(frozen=True, slots=True)
class Truth:
    """One transaction as the history knows it; `amount` in minor units of its own currency."""

    time_ms: int
    amount: int
    fraud: bool
    campaign: str | None
    kind: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision; `amount` in minor units of the base currency."""

    outcome: str
    amount: int
    rule_hit: bool


@dataclass(slots=True)
class Campaign:
    """One kind of attack: its transactions, how many were stopped, how fast, and what got through."""

    kind: str
    transactions: int = 0
    caught: int = 0
    lost_money: int = 0
    first_block_s: list[float] = field(default_factory=list)
    campaigns: int = 0
    missed: int = 0

    def as_json(self) -> dict[str, Any]:
        """`first_block_s`: median over campaigns of this kind, `None` if none was ever stopped."""
        return {
            "kind": self.kind,
            "campaigns": self.campaigns,
            "transactions": self.transactions,
            "caught": self.caught,
            "first_block_s": round(median(self.first_block_s), 1) if self.first_block_s else None,
            "lost_money": self.lost_money / 100,
            "missed_campaigns": self.missed,
        }


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """`precision`: share of stopped transactions that were fraud. `recall`: share of the campaigns'
    transactions after the first of each that were stopped. `rules_*`: the same had only the rules decided.
    Money in major units."""

    outcomes: dict[str, int]
    campaigns: list[Campaign]
    precision: float
    recall: float
    rules_precision: float
    rules_recall: float
    money_saved: float
    money_lost: float
    good_stopped: int


def truths(history: Path) -> dict[str, Truth]:
    """Ground truth of a generated history, by transaction id."""
    columns = ["transaction_id", "time", "amount", "fraud", "campaign", "campaign_kind"]
    table = pq.read_table(history, columns=columns).to_pydict()
    rows = zip(*(table[name] for name in columns), strict=True)
    return {row[0]: Truth(*row[1:]) for row in rows}


def score(truth: Mapping[str, Truth], verdicts: Mapping[str, Verdict]) -> Scoreboard:
    """Judge the decided transactions."""
    stopped = {i for i, v in verdicts.items() if v.outcome in STOPPED}
    ruled = {i for i, v in verdicts.items() if v.rule_hit}
    frauds = {i for i in verdicts if truth[i].fraud}
    followers = _followers(truth, frauds)
    return Scoreboard(
        outcomes=dict(Counter(v.outcome for v in verdicts.values())),
        campaigns=_campaigns(truth, verdicts, frauds, stopped),
        precision=_share(len(stopped & frauds), len(stopped)),
        recall=_share(len(stopped & followers), len(followers)),
        rules_precision=_share(len(ruled & frauds), len(ruled)),
        rules_recall=_share(len(ruled & followers), len(followers)),
        money_saved=sum(verdicts[i].amount for i in frauds & stopped) / 100,
        money_lost=sum(verdicts[i].amount for i in frauds - stopped) / 100,
        good_stopped=len(stopped - frauds),
    )


def _followers(truth: Mapping[str, Truth], frauds: set[str]) -> set[str]:
    """Campaign transactions that come after the first of their campaign."""
    first: dict[str, tuple[int, str]] = {}
    for i in frauds:
        name = truth[i].campaign
        if name is not None:
            first[name] = min(first.get(name, (truth[i].time_ms, i)), (truth[i].time_ms, i))
    firsts = {i for _, i in first.values()}
    return {i for i in frauds if truth[i].campaign is not None and i not in firsts}


def _campaigns(
    truth: Mapping[str, Truth],
    verdicts: Mapping[str, Verdict],
    frauds: set[str],
    stopped: set[str],
) -> list[Campaign]:
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for i in frauds:
        if truth[i].campaign is not None:
            members[str(truth[i].kind), str(truth[i].campaign)].append(i)
    kinds: dict[str, Campaign] = {}
    for (kind, _), ids in sorted(members.items()):
        board = kinds.setdefault(kind, Campaign(kind))
        caught = [i for i in ids if i in stopped]
        board.campaigns += 1
        board.transactions += len(ids)
        board.caught += len(caught)
        board.lost_money += sum(verdicts[i].amount for i in ids if i not in stopped)
        if caught:
            began = min(truth[i].time_ms for i in ids)
            board.first_block_s.append((min(truth[i].time_ms for i in caught) - began) / 1000)
        else:
            board.missed += 1
    return list(kinds.values())


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
