"""`cordon audit`: what an auditor does with the journals of decisions, offline and with public keys alone."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from api.audit import logbook
from api.audit.anchors import read_anchors
from api.audit.cold import cool
from api.audit.export import ExportRefused
from api.audit.export import export as copy_out
from api.audit.inspection import Inspected, anchored_name, check_checkpoints, inspect, trust_of
from api.audit.keys import KeyDirectory, KeyUnusable, PublicKey
from api.audit.proof import ProofFails, check, locate, prove
from api.journal import JournalBusy, JournalUnavailable
from api.segment import Damage, segments_in
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import Record, directory_of

app = typer.Typer(help=__doc__, no_args_is_help=True)


class NoJournal(Failure):
    """There is nothing to verify at the place that was named."""


class NotAuditable(Failure):
    """A key, a record or a proof is not there or not usable; the message says which."""


Journal = Annotated[
    Path | None, typer.Option("--journal", help="A journal, or a directory of journals; the stack's without.")
]
Anchors = Annotated[Path | None, typer.Option(help="Directory of anchored checkpoints; the stack's without.")]
Keys = Annotated[Path | None, typer.Option(help="Directory of public keys (*.pem); the stack's without.")]
Name = Annotated[str, typer.Option(help="The stack that is meant.")]
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]


@app.command()
def verify(
    journal: Journal = None,
    anchors: Anchors = None,
    keys: Keys = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Checks every record against chain and signed checkpoints. Leaves with 0 where nothing is damaged.

    Needs files only: the service may run, or be gone for years. Damage: segment, record and kind are named.
    """
    evidence = Evidence.begin("audit")
    place = journal or _configured("JOURNAL__DIRECTORY", name)
    anchored, trusted = (
        anchors or _configured("AUDIT__ANCHORS", name),
        keys or _configured("AUDIT__KEYS", name),
    )
    journals = journals_in(place)
    began_s = time.perf_counter()
    try:
        found = inspect(journals, anchored, trusted, all_of=journals != [place])
    except KeyUnusable as error:
        raise NotAuditable(f"{error}; name the directory of public keys with --keys") from error
    taken_s = time.perf_counter() - began_s
    records = sum(each.verified.records for each in found if each.verified is not None)
    if not as_json:
        for each in found:
            for line in lines_of(each):
                evidence.progress(line)
    damaged = sum(bool(each.findings) for each in found)
    body = {
        "journals": [report_of(each) for each in found],
        "records": records,
        "records_per_s": round(records / taken_s),
        "damaged": damaged,
    }
    evidence.end(body, holds=not damaged)


@app.command("prove")
def prove_record(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a decision, label or event.")],
    journal: Journal = None,
    anchors: Anchors = None,
    keys: Keys = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Prints the proof that a record is in the journal, for a third party who has the public key alone."""
    journals = journals_in(journal or _configured("JOURNAL__DIRECTORY", name))
    located = locate(journals, record_id)
    if located is None:
        raise NotAuditable(f"{record_id}: no journal here holds a record of this id")
    anchored = read_anchors(anchors or _configured("AUDIT__ANCHORS", name))
    try:
        trust = trust_of(anchored, keys or _configured("AUDIT__KEYS", name))
    except KeyUnusable as error:
        raise NotAuditable(f"{error}; name the directory of public keys with --keys") from error
    own = anchored_name(located.directory, anchored)
    sound, _ = check_checkpoints(anchored.checkpoints.get(own, []) if own else [], trust)
    covering = next((c for c in sound if c.size > located.number), None)
    if covering is None:
        raise NotAuditable(f"{record_id}: no checkpoint covers it yet; try again in a while")
    try:
        proof = prove(located, covering)
    except (ProofFails, Damage) as error:
        raise NotAuditable(f"{located.directory.name}: {error}") from error
    if not as_json:
        where = f"record {located.number} of {covering.journal}"
        sys.stderr.write(f"{record_id}: {where}, checkpoint {covering.number}, key {covering.key}\n")
    sys.stdout.write(json.dumps(proof) + "\n")


@app.command("check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(help="What `prove` printed.")],
    key: Annotated[Path, typer.Option(help="The public key (PEM), from whoever answers for the journal.")],
    as_json: Json = False,
) -> None:
    """Checks a proof with the public key alone. Leaves with 0 where the record was in the journal."""
    evidence = Evidence.begin("proof")
    try:
        shown = check(json.loads(file.read_text()), PublicKey.read(key))
    except (KeyUnusable, OSError) as error:
        raise NotAuditable(str(error)) from error
    except (ProofFails, ValueError) as error:
        evidence.end({"proven": False, "why": str(error)}, holds=False)
    if not as_json:
        evidence.progress(f"{shown.record['id']} is record {shown.number} of {shown.checkpoint.journal}")
    body = {
        "proven": True,
        "id": shown.record["id"],
        "journal": shown.checkpoint.journal,
        "number": shown.number,
        "checkpoint": shown.checkpoint.number,
        "signed_ms": shown.checkpoint.time_ms,
        "record": shown.record,
    }
    evidence.end(body, holds=True)


@app.command()
def export(
    to: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    journal: Journal = None,
    anchors: Anchors = None,
    keys: Keys = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Copies journals, checkpoints and public keys for somebody outside, with a README how to verify them."""
    evidence = Evidence.begin("export")
    journals = journals_in(journal or _configured("JOURNAL__DIRECTORY", name))
    held = anchors or _configured("AUDIT__ANCHORS", name), keys or _configured("AUDIT__KEYS", name)
    try:
        done = copy_out(journals, *held, to)
    except (ExportRefused, OSError) as error:
        raise NotAuditable(str(error)) from error
    if not as_json:
        evidence.progress(f"{done.journals} journals are in {to}; {to / 'README.md'} says how to verify them")
    evidence.end({"to": str(to), **asdict(done)}, holds=True)


@app.command()
def compress(
    journal: Journal = None,
    anchors: Anchors = None,
    keys: Keys = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Compresses segments that are published and under a signed, anchored checkpoint; nothing else changes.

    `verify`, `prove`, `export` and everything that reads journals read them as before.
    """
    evidence = Evidence.begin("compression")
    journals = journals_in(journal or _configured("JOURNAL__DIRECTORY", name))
    anchored = read_anchors(anchors or _configured("AUDIT__ANCHORS", name))
    done = {}
    try:
        trust = trust_of(anchored, keys or _configured("AUDIT__KEYS", name))
        for each in journals:
            own = anchored_name(each, anchored)
            sound, _ = check_checkpoints(anchored.checkpoints.get(own, []) if own else [], trust)
            done[each.name] = cool(each, sound)
    except KeyUnusable as error:
        raise NotAuditable(f"{error}; name the directory of public keys with --keys") from error
    except (Damage, OSError) as error:
        raise NotAuditable(str(error)) from error
    if not as_json:
        for journal_name, cooled in done.items():
            evidence.progress(
                f"{journal_name}: {cooled.segments} segments,"
                f" {cooled.bytes_before:,} bytes are {cooled.bytes_after:,} now"
            )
    evidence.end({"journals": {n: asdict(cooled) for n, cooled in done.items()}}, holds=True)


@app.command("rotate-key")
def rotate_key(name: Name = "default", as_json: Json = False) -> None:
    """Makes a new signing key. The old one signs its last statement: that the new one follows it."""
    evidence = Evidence.begin("rotation")
    directory = KeyDirectory(_configured("AUDIT__KEYS", name))
    now_ms = time.time_ns() // 1_000_000
    try:
        key, rotation = directory.prepare(now_ms)
        # The record comes first: a rotation that nobody can look up must not have happened.
        logbook.note(
            _configured("JOURNAL__DIRECTORY", name),
            "key_rotation",
            {"statement": rotation.as_json()},
            id=f"key-rotation-{key.id}",
            time_ms=now_ms,
            tenant=Settings.load().tenant,
        )
        directory.activate(key)
    except (KeyUnusable, JournalBusy, JournalUnavailable, Damage) as error:
        raise NotAuditable(str(error)) from error
    if not as_json:
        evidence.progress(f"key {key.id} signs from now on; {rotation.old} stays trusted for what it signed")
    evidence.end({"old": rotation.old, "new": key.id}, holds=True)


def journals_in(place: Path) -> list[Path]:
    """The journals at a place: itself, or the directories below it. Raises `NoJournal`."""
    if not place.is_dir():
        raise NoJournal(f"{place}: no such directory; name the journal's with --journal")
    found = [path for path in (place, *sorted(place.iterdir())) if path.is_dir() and segments_in(path)]
    if not found:
        raise NoJournal(f"{place}: no journal here or one level below")
    return found


def report_of(inspected: Inspected) -> dict[str, Any]:
    """One journal as JSON."""
    verified = inspected.verified
    report: dict[str, Any] = {
        "journal": inspected.journal,
        "checkpoints": inspected.checkpoints,
        "protected": inspected.protected,
        "last_checkpoint_ms": inspected.last_checkpoint_ms,
        "damage": [
            {key: value for key, value in asdict(finding).items() if value is not None}
            for finding in inspected.findings
        ],
    }
    if verified is not None:
        report |= {
            "segments": verified.segments,
            "records": verified.records,
            "unprotected": verified.records - inspected.protected,
            "head": verified.head.hash.hex(),
            "torn_bytes": verified.torn_bytes,
        }
    return report


def lines_of(inspected: Inspected) -> list[str]:
    """One journal in plain words."""
    lines = []
    for finding in inspected.findings:
        where = f"segment {finding.segment}, record {finding.record}: " if finding.segment else ""
        lines.append(f"{inspected.journal}: DAMAGED ({finding.sort}): {where}{finding.text}")
    if inspected.verified is not None:
        open_end = inspected.verified.records - inspected.protected
        signed = f"{inspected.protected} of them signed, {open_end} since the last checkpoint"
        head = inspected.verified.head.hash.hex()[:16]
        lines.append(
            f"{inspected.journal}: {inspected.verified.records} records intact, {signed}, head {head}"
        )
    return lines


def _configured(variable: str, name: str) -> Path:
    """A place of the named stack, else of the settings."""
    record = Record.read(directory_of(name))
    told = record.environment.get(f"CORDON_{variable}") if record is not None else None
    if told is not None:
        return Path(told)
    group, field = variable.lower().split("__")
    default = directory_of(name) / ("journal" if group == "journal" else field)
    return default if default.is_dir() else Path(getattr(getattr(Settings.load(), group), field))
