"""`cordon erasures`: a restored backup of the keys forgets again what was erased since."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.audit import logbook
from api.vault.directory import Vault
from cordon.main import app

GONE = (5, 2**50)


def test_what_was_erased_is_destroyed_again_in_a_restored_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORDON_JOURNAL__DIRECTORY", str(tmp_path / "journal"))
    monkeypatch.setenv("CORDON_VAULT__DIRECTORY", str(tmp_path / "vault"))
    vault = Vault(tmp_path / "vault", lambda size: bytes(range(size)))
    shutil.copy(tmp_path / "vault" / "keys", tmp_path / "backup")
    own = vault.read().id.hex()
    vault.destroy(GONE)
    for number, id in enumerate((own, "00" * 8)):
        logbook.note(
            tmp_path / "journal",
            "erasure",
            {"vault": {"id": id}, "leaves": [f"{leaf + number:016x}" for leaf in GONE]},
            id=f"erasure-{number}",
            time_ms=1,
            tenant="demo",
        )
    listed = CliRunner().invoke(app, ["erasures", "list", "--name", "no-such-stack"])
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["erasure-0", "erasure-1"]
    shutil.copy(tmp_path / "backup", tmp_path / "vault" / "keys")
    assert all(map(vault.read().frontier.covers, GONE))
    for destroyed in (2, 0):
        done = CliRunner().invoke(app, ["erasures", "repeat", "--name", "no-such-stack", "--json"])
        assert done.exit_code == 0, done.output
        body = json.loads(done.stdout.splitlines()[-1])
        assert (body["erasures"], body["of_other_vaults"], body["destroyed_again"]) == (2, 1, destroyed)
        assert not any(map(vault.read().frontier.covers, GONE))
        assert vault.read().frontier.covers(6)
