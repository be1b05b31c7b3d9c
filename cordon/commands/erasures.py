"""`cordon erasures`: what was erased, and destroying the keys again after a backup of them was restored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from api.compose import vault_of
from api.config import InvalidConfiguration, ServiceConfig
from api.journal_reader import JournalReader
from api.record import Kind, decode_json, unpack
from api.segment import Damage
from api.vault.directory import VaultUnusable
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import Record, directory_of

app = typer.Typer(help=__doc__, no_args_is_help=True)
BATCH = 10_000


class NotRepeated(Failure):
    """The journals or the vault cannot be read; the message says which. Nothing was changed."""


Name = Annotated[str, typer.Option(help="The stack that is meant.")]
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]


@app.command("list")
def list_(name: Name = "default") -> None:
    """The receipts of all erasures in the journals, one JSON object per line."""
    for receipt in receipts(configured(name).journal_dir):
        sys.stdout.write(json.dumps(receipt) + "\n")


@app.command()
def repeat(name: Name = "default", as_json: Json = False) -> None:
    """Destroys the keys of every erasure in the journals again: after a backup of the vault was restored."""
    evidence = Evidence.begin("erasures")
    config = configured(name)
    try:
        vault = vault_of(config)
        own = vault.read().id.hex()
        found = list(receipts(config.journal_dir))
        leaves = [leaf for r in found if r["vault"]["id"] == own for leaf in r["leaves"]]
        before, after = vault.destroy(int(leaf, 16) for leaf in leaves)
    except (InvalidConfiguration, VaultUnusable) as error:
        raise NotRepeated(str(error)) from error
    again = sum(before.frontier.covers(int(leaf, 16)) for leaf in leaves)
    if not as_json:
        evidence.progress(f"{len(found)} erasures, {again} keys destroyed again")
    body = {
        "erasures": len(found),
        "of_other_vaults": sum(r["vault"]["id"] != own for r in found),
        "destroyed_again": again,
        "version": after.version,
    }
    evidence.end(body, holds=True)


def configured(name: str) -> ServiceConfig:
    """The configuration of the named stack, else of the settings. Raises `NotRepeated`."""
    record = Record.read(directory_of(name))
    told = record.environment if record is not None else {}
    try:
        return ServiceConfig.from_environment({**Settings.load().environment(), **told})
    except InvalidConfiguration as error:
        raise NotRepeated(str(error)) from error


def receipts(journals: Path) -> Iterator[dict[str, Any]]:
    """Of every erasure in the journals below a directory. Raises `NotRepeated`."""
    for mark in sorted(journals.glob("*/mark")):
        reader = JournalReader(mark.parent)
        try:
            while records := reader.read(BATCH):
                for record in records:
                    envelope = unpack(record.body)
                    if envelope.kind is Kind.AUDIT:
                        body = decode_json(envelope.payload)
                        if body.get("event") == "erasure":
                            yield body
        except Damage as error:
            raise NotRepeated(f"{mark.parent.name}: {error}; verify it with `cordon audit verify`") from error
        finally:
            reader.close()
