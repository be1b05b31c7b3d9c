"""`cordon store`: what is done to the query store by hand."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from api.engine import QueryStoreUnavailable
from api.past.mover import move
from api.past.store import migrate_store
from api.past.warm import WarmBusy, WarmMissing
from cordon.evidence import Evidence
from cordon.failure import Failure
from cordon.settings import Settings, without_password
from cordon.stack.record import Record, directory_of

app = typer.Typer(help=__doc__, no_args_is_help=True)
Name = Annotated[str, typer.Option(help="The stack that is meant.")]
Url = Annotated[str | None, typer.Option("--url", help="Its address; the stack's or the settings' without.")]
Json = Annotated[bool, typer.Option("--json", help="Only the JSON object.")]


class StoreNotReady(Failure):
    """The query store cannot be reached or is none; the message says which."""


@app.callback()
def store() -> None:
    """What is done to the query store by hand."""


@app.command()
def migrate(url: Url = None, name: Name = "default", as_json: Json = False) -> None:
    """Brings the schema to this version. The projector does so when it starts; running it twice is fine."""
    evidence = Evidence.begin("store")
    address = url or configured("CORDON_STORE_URL", name) or Settings.load().store_url
    try:
        before, now = migrate_store(address)
    except (QueryStoreUnavailable, ValueError) as error:
        raise StoreNotReady(str(error)) from error
    if not as_json:
        evidence.progress(f"{without_password(address)}: schema {now}, before {before or 'none'}")
    evidence.end({"before": before, "now": now}, holds=True)


@app.command()
def tier(
    hot_days: Annotated[
        int | None, typer.Option(min=1, help="Days that stay; the stack's or the settings' without.")
    ] = None,
    warm: Annotated[Path | None, typer.Option(help="The warm store's directory; likewise.")] = None,
    url: Url = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Moves older decisions into the warm store. The projector does so at intervals."""
    evidence = Evidence.begin("store")
    settings = Settings.load()
    told = configured("CORDON_TIER__HOT_DAYS", name)
    days = hot_days or (int(told) if told else settings.tier.hot_days)
    if days is None:
        raise StoreNotReady("say how many days stay: --hot-days N, or CORDON_TIER__HOT_DAYS")
    place = warm or Path(configured("CORDON_TIER__WARM", name) or settings.tier.warm)
    address = url or configured("CORDON_STORE_URL", name) or settings.store_url
    try:
        done = move(address, place, days, time.time_ns() // 1_000_000)
    except (QueryStoreUnavailable, WarmBusy, WarmMissing, OSError, ValueError) as error:
        raise StoreNotReady(str(error)) from error
    if not as_json:
        evidence.progress(f"{done.decisions:,} decisions moved into {place}, {done.files} files more")
    evidence.end(asdict(done), holds=True)


def configured(variable: str, name: str) -> str | None:
    """What the named stack was started with."""
    record = Record.read(directory_of(name))
    return None if record is None else record.environment.get(variable)
