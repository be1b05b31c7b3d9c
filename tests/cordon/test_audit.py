"""`cordon audit` and `cordon bench`: what they find, what they say, how they leave."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.audit.anchors import FileAnchors, read_anchors
from api.audit.keys import KeyDirectory, SigningKey
from api.audit.notary import Interval, Notary
from api.journal import Journal
from api.record import Kind, pack
from api.segment import name_of
from cordon.commands.bench import measurements
from cordon.main import app
from tests.parts import ROOT

NOW_MS = 1_800_000_000_000


class Place:
    """Two journals with anchors and keys, as a stack leaves them; commands are run as a person would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = {
            "CORDON_JOURNAL__DIRECTORY": str(directory / "journal"),
            "CORDON_AUDIT__ANCHORS": str(directory / "anchors"),
            "CORDON_AUDIT__KEYS": str(directory / "keys"),
        }
        for name in ("door-0", "service-0"):
            self.write(name, "t-1", "t-2")
            self.write(name, "t-3")
        self.anchor()

    def write(self, name: str, *ids: str) -> None:
        with Journal(self.directory / "journal" / name, segment_bytes=4096) as journal:
            prefix = "" if name == "service-0" else f"{name}-"
            journal.append([pack(Kind.DECISION, "k", f'{{"id":"{prefix}{id}"}}'.encode()) for id in ids])

    def anchor(self) -> None:
        keys = KeyDirectory(self.directory / "keys")
        notary = Notary(FileAnchors(self.directory / "anchors"), keys, Interval(2, 0))
        for path in sorted((self.directory / "journal").iterdir()):
            known = list(read_anchors(self.directory / "anchors").checkpoints)
            name = next((n for n in known if n.startswith(path.name)), f"{path.name}-{self.first(path)}")
            notary.follow(name, path)
        while notary.step(NOW_MS):
            pass
        notary.close()

    def first(self, journal: Path) -> str:
        from api.publisher import journal_id

        name = journal_id(journal)
        assert name is not None
        return name.rpartition("-")[2]

    def places(self, base: Path | None = None) -> list[str]:
        at = base or self.directory
        names = ("journal", "anchors", "keys")
        return [part for name in names for part in (f"--{name}", str(at / name))]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["audit", *arguments], env=self.settings)

    def verify(self, *more: str) -> tuple[int, dict[str, Any], str]:
        result = self.run("verify", *self.places(), *more)
        return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_intact_journals_are_counted_with_their_heads(place: Place):
    code, body, said = place.verify()
    assert (code, body["records"], body["damaged"], body["holds"]) == (0, 6, 0, True)
    assert {len(report["head"]) for report in body["journals"]} == {64}
    assert {(r["protected"], r["unprotected"]) for r in body["journals"]} == {(3, 0)}
    assert "door-0: 3 records intact, 3 of them signed, 0 since the last checkpoint" in said


def test_one_journal_can_be_named_and_the_rest_is_not_missed(place: Place):
    code, body, said = place.verify("--journal", str(place.directory / "journal" / "door-0"), "--json")
    assert (code, body["records"], said) == (0, 3, "")


def test_a_changed_byte_is_found_and_named(place: Place):
    segment = place.directory / "journal" / "service-0" / name_of(1)
    content = bytearray(segment.read_bytes())
    content[content.index(b"t-2")] ^= 1
    segment.write_bytes(content)
    code, body, said = place.verify()
    assert (code, body["damaged"], body["holds"]) == (1, 1, False)
    damage = body["journals"][1]["damage"]
    assert [(d["sort"], d["segment"], d["record"]) for d in damage] == [("changed", segment.name, 1)]
    assert f"service-0: DAMAGED (changed): segment {segment.name}, record 1: the record was changed" in said


def test_a_journal_that_was_deleted_is_missed(place: Place):
    shutil.rmtree(place.directory / "journal" / "door-0")
    code, body, _ = place.verify()
    assert code == 1
    assert body["journals"][-1]["damage"][0]["sort"] == "journal_missing"


def test_a_checkpoint_signed_with_another_key_is_found(place: Place):
    (path,) = (place.directory / "anchors").glob("door-0-*/*.jsonl")
    checkpoint = read_anchors(place.directory / "anchors").checkpoints[path.parent.name][0]
    path.write_bytes(checkpoint.signed_by(SigningKey.new()).line() + b"\n")
    code, body, _ = place.verify()
    finding = body["journals"][0]["damage"][0]
    # It still names the trusted key: that key did not sign it.
    assert (code, finding["sort"], finding["segment"]) == (1, "checkpoint_altered", name_of(1))


def test_nothing_to_verify_is_not_success(tmp_path: Path):
    for empty in (tmp_path, tmp_path / "absent"):
        assert CliRunner().invoke(app, ["audit", "verify", "--journal", str(empty)]).exit_code == 2


def test_anchors_without_public_keys_are_not_success(place: Place):
    shutil.rmtree(place.directory / "keys")
    result = place.run("verify", *place.places())
    assert result.exit_code == 2
    assert "--keys" in result.stderr


def test_a_record_is_proven_to_somebody_who_has_only_the_key(place: Place, tmp_path: Path):
    result = place.run("prove", "t-2", *place.places(), "--json")
    assert result.exit_code == 0, result.stderr
    proof = tmp_path / "proof.json"
    proof.write_text(result.stdout)
    (key,) = (place.directory / "keys").glob("*.public.pem")
    alone = tmp_path / "key.pem"
    shutil.copy(key, alone)
    for name in ("journal", "anchors", "keys"):
        shutil.rmtree(place.directory / name)
    checked = CliRunner().invoke(app, ["audit", "check-proof", str(proof), "--key", str(alone)])
    body = json.loads(checked.stdout)
    assert (checked.exit_code, body["proven"], body["record"]["id"], body["number"]) == (0, True, "t-2", 1)
    bent = json.loads(proof.read_text())
    bent["number"] = 2
    proof.write_text(json.dumps(bent))
    refused = CliRunner().invoke(app, ["audit", "check-proof", str(proof), "--key", str(alone)])
    assert (refused.exit_code, json.loads(refused.stdout)["proven"]) == (1, False)


def test_what_cannot_be_proven_is_said(place: Place):
    assert "no journal here holds" in place.run("prove", "nobody", *place.places()).stderr
    place.write("service-0", "t-4")
    assert "no checkpoint covers it yet" in place.run("prove", "t-4", *place.places()).stderr


def test_an_export_verifies_without_the_host_and_holds_no_secret(place: Place, tmp_path: Path):
    place.write("service-0", "t-4")
    out = tmp_path / "out"
    with Journal(place.directory / "journal" / "service-0", segment_bytes=4096):
        result = place.run("export", str(out), *place.places())
    assert result.exit_code == 0, result.stderr
    for name in ("journal", "anchors", "keys"):
        shutil.rmtree(place.directory / name)
    verified = place.run("verify", *place.places(out), "--json")
    body = json.loads(verified.stdout)
    assert (verified.exit_code, body["records"], body["damaged"]) == (0, 7, 0)
    assert not [path for path in out.rglob("*") if "private" in path.name]
    assert "cordon audit verify --journal journal" in (out / "README.md").read_text()
    assert place.run("export", str(out), *place.places(out)).exit_code == 2


def test_keys_are_rotated_and_old_checkpoints_stay_good(place: Place, tmp_path: Path):
    (first,) = (place.directory / "keys").glob("*.public.pem")
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(first, only)
    rotated = place.run("rotate-key")
    assert rotated.exit_code == 0, rotated.stderr
    place.write("service-0", "t-4", "t-5")
    place.anchor()
    checkpoints = read_anchors(place.directory / "anchors").checkpoints
    keys = {c.key for name, found in checkpoints.items() for c in found if name.startswith("service-0")}
    assert keys == {json.loads(rotated.stdout)["old"], json.loads(rotated.stdout)["new"]}
    # The rotation is a record of its own, and whoever has the first key alone follows it.
    code, body, _ = place.verify("--keys", str(only))
    assert (code, body["records"]) == (0, 9)
    assert {r["journal"] for r in body["journals"]} == {"audit", "door-0", "service-0"}
    os.unlink(place.directory / "anchors" / "rotations.jsonl")
    code, body, _ = place.verify("--keys", str(only))
    assert (code, {d["sort"] for r in body["journals"] for d in r["damage"]}) == (1, {"foreign_key"})


def test_measurements_are_listed_with_what_they_measure():
    listed = CliRunner().invoke(app, ["bench"])
    assert listed.exit_code == 0
    assert len(listed.stdout.splitlines()) == len(measurements(ROOT / "bench"))
    assert all(measurements(ROOT / "bench").values())


def test_only_what_can_be_run_is_a_measurement(tmp_path: Path):
    (tmp_path / "speed.py").write_text('"""How fast.\n\nMore."""\nif __name__ == "__main__":\n    print(1)\n')
    (tmp_path / "shared.py").write_text('"""Not run."""\n')
    assert measurements(tmp_path) == {"speed": "How fast."}


def test_an_unknown_measurement_is_named_with_those_that_exist():
    result = CliRunner().invoke(app, ["bench", "wind"])
    assert result.exit_code == 2
    assert "no measurement is named wind; there are: " in result.stderr
