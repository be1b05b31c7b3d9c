"""`cordon letters`: what could not be decided; looking inside is an audit event."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from api.audit import logbook
from api.compose import vault_of
from api.config import InvalidConfiguration, ServiceConfig
from api.dead_letters import read_letters
from api.erasure import LettersUnavailable
from api.journal import JournalBusy, JournalUnavailable
from api.letter import VERSION, Opened, holder_of, opened, place_of
from api.segment import Damage
from api.vault.directory import Vault, VaultUnusable
from api.vault.seal import NONCE_BYTES, Erased, NotOpened, Sealer
from cordon.failure import Failure
from cordon.settings import Settings
from cordon.stack.record import Record, directory_of

app = typer.Typer(help=__doc__, no_args_is_help=True)


class NoLetter(Failure):
    """The letter is not there, or cannot be opened; the message says why."""


Name = Annotated[str, typer.Option(help="The stack that is meant.")]


@dataclass(frozen=True, slots=True)
class Post:
    """The dead letters of one installation, and the keys that open them."""

    config: ServiceConfig
    vault: Vault

    @classmethod
    def open(cls, stack: str) -> Post:
        """Of a running stack, else of the settings. Raises `NoLetter`."""
        environment: Mapping[str, str] = Settings.load().environment()
        record = Record.read(directory_of(stack))
        if record is not None:
            environment = {**environment, **record.environment}
        try:
            config = ServiceConfig.from_environment(environment)
            return cls(config, vault_of(config))
        except InvalidConfiguration as error:
            raise NoLetter(str(error)) from error

    def letters(self) -> Iterator[dict[str, Any]]:
        """All that are there. Raises `NoLetter`."""
        try:
            yield from read_letters(self.config.kafka, self.config.topics)
        except LettersUnavailable as error:
            raise NoLetter(str(error)) from error

    def look(self, id: str, purpose: str, now_ms: int) -> tuple[dict[str, Any], Opened]:
        """A letter and its inside; the look is in the journal before. Raises `NoLetter`."""
        letter = next((each for each in self.letters() if place_of(each).id == id), None)
        if letter is None:
            raise NoLetter(f"{id}: no such dead letter; `cordon letters list` shows them")
        if letter.get("v") != VERSION:
            raise NoLetter(f"{id}: written by an earlier version, in plain text: read it from the topic")
        try:
            sealer = Sealer(self.vault.read(), self.config.tenant, lambda: secrets.token_bytes(NONCE_BYTES))
            found = opened(sealer.open(holder_of(letter["subject"], place_of(letter)), id, letter["sealed"]))
        except Erased as error:
            raise NoLetter(f"{id}: erased, {error}") from error
        except (NotOpened, VaultUnusable) as error:
            raise NoLetter(f"{id}: {error}") from error
        try:
            logbook.note(
                self.config.journal_dir,
                "dead_letter_access",
                {"letter": id, "purpose": purpose},
                id=f"access-{secrets.token_hex(8)}",
                time_ms=now_ms,
                tenant=self.config.tenant,
            )
        except (JournalBusy, JournalUnavailable, Damage) as error:
            raise NoLetter(f"the look cannot be recorded, so nothing is shown: {error}") from error
        return letter, found


@app.command("list")
def list_(name: Name = "default", limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000) -> None:
    """The newest dead letters, one JSON object per line, without what is inside."""
    found = list(Post.open(name).letters())[-limit:]
    for letter in found:
        shown = {key: value for key, value in letter.items() if key not in ("sealed", "original")}
        sys.stdout.write(json.dumps({"id": place_of(letter).id, **shown}) + "\n")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="As `list` names it: TOPIC-PARTITION-OFFSET.")],
    purpose: Annotated[str, typer.Option(help="Why: a case, not a person. It goes into the journal.")],
    name: Name = "default",
) -> None:
    """One dead letter with the bytes that it holds, as one JSON object."""
    letter, inside = Post.open(name).look(id, purpose, time.time_ns() // 1_000_000)
    shown = {key: value for key, value in letter.items() if key != "sealed"}
    body = {**shown, "field": inside.field, "reason": inside.reason}
    text = inside.original.decode("utf-8", "backslashreplace")
    sys.stdout.write(json.dumps({**body, "original": text}) + "\n")
