"""`cordon audit`: verify the journals of decisions offline, record by record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.journal_reader import verify
from api.segment import Damage, segments_in
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import Record, directory_of


class NoJournal(Failure):
    """There is nothing to verify at the place that was named."""


def command(
    directory: Annotated[
        Path | None, typer.Argument(help="A journal, or a directory of journals; the stack's without.")
    ] = None,
    name: Annotated[str, typer.Option(help="The stack whose journals are meant.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Only the JSON object.")] = False,
) -> None:
    """Checks every record against the hash chain, reading files only; leaves with 0 where nothing is damaged.

    The last hash of each journal is printed: whoever noted an earlier one can find it in the chain.
    """
    evidence = Evidence.begin("audit")
    place = directory or journals_of(name)
    reports = [report_of(journal) for journal in journals_in(place)]
    for report in reports:
        if not as_json:
            evidence.progress(line_of(report))
    damaged = [report for report in reports if report["damage"] is not None]
    body = {
        "journals": reports,
        "records": sum(report["records"] for report in reports),
        "damaged": len(damaged),
    }
    evidence.end(body, holds=not damaged)


def journals_of(name: str) -> Path:
    """The journals of a stack: where it was last told to keep them, or where it does so by default."""
    record = Record.read(directory_of(name))
    told = record.environment.get("CORDON_JOURNAL__DIRECTORY") if record is not None else None
    if told is not None:
        return Path(told)
    usual = directory_of(name) / "journal"
    return usual if usual.is_dir() else Settings.load().journal.directory


def journals_in(place: Path) -> list[Path]:
    """The journals at a place: itself, or the directories below it. Raises `NoJournal`."""
    if not place.is_dir():
        raise NoJournal(f"{place}: no such directory; name the journal's")
    found = [path for path in (place, *sorted(place.iterdir())) if path.is_dir() and segments_in(path)]
    if not found:
        raise NoJournal(f"{place}: no journal here or one level below")
    return found


def report_of(journal: Path) -> dict[str, Any]:
    """What verification says of one journal."""
    try:
        verified = verify(journal)
    except Damage as damage:
        return {"journal": journal.name, "records": 0, "damage": str(damage)}
    return {
        "journal": journal.name,
        "segments": verified.segments,
        "records": verified.records,
        "head": verified.head.hash.hex(),
        "torn_bytes": verified.torn_bytes,
        "damage": None,
    }


def line_of(report: dict[str, Any]) -> str:
    """One journal in one line."""
    if report["damage"] is not None:
        return f"{report['journal']}: DAMAGED: {report['damage']}"
    return f"{report['journal']}: {report['records']} records intact, head {report['head'][:16]}"
