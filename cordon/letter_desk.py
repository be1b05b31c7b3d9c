"""What people do with dead letters, on one installation: listed, looked into, the look recorded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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


class NoLetter(Failure):
    """The letter is not there, or cannot be opened; the message says why."""


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
