"""Cold segments: what may be compressed is, and everything that reads journals reads them as before."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from api.audit.anchors import FileAnchors, read_anchors
from api.audit.cold import cool, eligible
from api.audit.inspection import name_of_journal
from api.audit.keys import KeyDirectory, PublicKey
from api.audit.notary import Interval, Notary
from api.audit.proof import check, locate, prove
from api.audit.verify import verify
from api.journal import Journal, Mark
from api.journal_reader import JournalReader
from api.record import Kind, encode_json, pack
from api.segment import Damage, segments_in
from api.segment_file import SUFFIX, compressed, content_of
from cordon.main import app

RECORDS = 60


def body(number):
    return pack(Kind.DECISION, "k", encode_json({"type": "decision", "id": f"t{number}", "pad": "x" * 80}))


def anchor(journal, place):
    """Checkpoints of the whole journal."""
    notary = Notary(FileAnchors(place / "anchors"), KeyDirectory(place / "keys"), Interval(5, 0))
    name = str(name_of_journal(journal))
    notary.follow(name, journal)
    while notary.step(1_800_000_000_000):
        pass
    notary.close()
    return read_anchors(place / "anchors").checkpoints[name]


@pytest.fixture
def journal(tmp_path):
    """Published and anchored to its end, in several segments."""
    with Journal(tmp_path / "journal" / "service-0", segment_bytes=1_500) as made:
        for number in range(0, RECORDS, 2):
            made.append([body(number), body(number + 1)])
        made.mark.shipped = made.head.sequence
    return tmp_path / "journal" / "service-0"


@pytest.fixture
def checkpoints(journal, tmp_path):
    return anchor(journal, tmp_path)


def forms(journal):
    return sorted(p.name for p in journal.iterdir() if ".segment" in p.name)


def read_all(journal):
    reader = JournalReader(journal)
    found = [record.body for record in reader.read(1_000)]
    reader.close()
    return found


def test_all_but_the_newest_are_compressed_and_read_as_before(journal, checkpoints):
    whole = {path.name: path.read_bytes() for path in segments_in(journal)}
    assert len(whole) >= 6
    before = verify(journal, checkpoints)
    done = cool(journal, checkpoints)
    assert done.segments == len(whole) - 3
    assert done.bytes_after < done.bytes_before
    assert [name.endswith(SUFFIX) for name in forms(journal)] == [True] * done.segments + [False] * 3
    assert {path.name: content_of(path) for path in segments_in(journal)} == whole
    assert verify(journal, checkpoints) == before
    assert read_all(journal) == [body(number) for number in range(RECORDS)]
    assert cool(journal, checkpoints).segments == 0


def test_a_record_of_a_cold_segment_is_proven(journal, checkpoints, tmp_path):
    cool(journal, checkpoints)
    located = locate([journal], "t1")
    assert located is not None
    covering = next(c for c in checkpoints if c.size > located.number)
    proof = json.loads(json.dumps(prove(located, covering)))
    (key,) = (tmp_path / "keys").glob("*.public.pem")
    assert check(proof, PublicKey.read(key)).record["id"] == "t1"


def test_the_writer_goes_on_behind_cold_segments(journal, checkpoints, tmp_path):
    cool(journal, checkpoints)
    with Journal(journal, segment_bytes=1_500) as again:
        again.append([body(RECORDS)])
        assert again.head.sequence == RECORDS + 1
    longer = anchor(journal, tmp_path)
    assert verify(journal, longer).protected == RECORDS + 1


def test_what_is_not_published_or_not_anchored_stays(journal, checkpoints):
    assert eligible(journal, []) == []
    early = [c for c in checkpoints if c.size <= 20]
    held = [path.name for path in eligible(journal, early)]
    assert 0 < len(held) < len(segments_in(journal)) - 3
    mark = Mark(journal)
    mark.shipped = 9
    mark.close()
    assert len(eligible(journal, checkpoints)) < len(held)
    mark = Mark(journal)
    mark.shipped = 0
    mark.close()
    assert cool(journal, checkpoints).segments == 0


@pytest.mark.parametrize("left", ["draft", "half_draft", "both", "both_and_the_second_is_torn"])
def test_a_death_between_two_steps_is_made_good(journal, checkpoints, tmp_path, left):
    #  write draft | sync | rename to .gz | remove the first
    whole = {path.name: path.read_bytes() for path in segments_in(journal)}
    shutil.copytree(journal, tmp_path / "cold")
    cool(tmp_path / "cold", checkpoints)
    path = eligible(journal, checkpoints)[1]
    cold = compressed(tmp_path / "cold" / path.name).read_bytes()
    if left.endswith("draft"):
        half = len(cold) // 2 if left == "half_draft" else len(cold)
        path.with_name(f"{path.name}.draft").write_bytes(cold[:half])
    else:
        compressed(path).write_bytes(cold[: len(cold) // 2] if "torn" in left else cold)
    assert verify(journal, checkpoints).records == RECORDS
    cool(journal, checkpoints)
    assert {p.name: content_of(p) for p in segments_in(journal)} == whole
    assert verify(journal, checkpoints).records == RECORDS
    assert not path.exists()
    assert not list(journal.glob("*.draft"))


def test_damage_to_a_cold_segment_is_found_wherever_it_is(journal, checkpoints):
    whole = {path.name: path.read_bytes() for path in segments_in(journal)}
    cool(journal, checkpoints)
    victim = segments_in(journal)[1]
    lies = compressed(victim)
    kept, blamed = lies.read_bytes(), []
    for at in range(len(kept)):
        lies.write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
        try:
            assert verify(journal, checkpoints).records == RECORDS
        except Damage as damage:
            blamed.append(damage.segment.name)
        else:
            # The envelope's own fields (time, system, checksum): what was signed is all there.
            assert content_of(victim) == whole[victim.name], at
    assert len(blamed) > len(kept) // 2
    assert set(blamed) <= {victim.name, segments_in(journal)[2].name}
    for size in range(0, len(kept) - 8, 7):
        lies.write_bytes(kept[:size])
        with pytest.raises(Damage):
            verify(journal, checkpoints)
    lies.unlink()
    with pytest.raises(Damage) as found:
        verify(journal, checkpoints)
    assert (found.value.sort, found.value.segment.name) == ("segment_deleted", victim.name)


def test_the_commands_compress_verify_prove_and_export(journal, checkpoints, tmp_path):
    def run(*arguments):
        places = [part for n in ("journal", "anchors", "keys") for part in (f"--{n}", str(tmp_path / n))]
        result = CliRunner().invoke(app, ["audit", *arguments, *places, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    heads = [report["head"] for report in run("verify")["journals"]]
    done = run("compress")["journals"]["service-0"]
    assert done["segments"] == len(segments_in(journal)) - 3
    assert [report["head"] for report in run("verify")["journals"]] == heads
    assert run("prove", "t3")["number"] == 3
    run("export", str(tmp_path / "out"))
    outside = tmp_path / "out" / "journal" / "service-0"
    assert forms(outside) == forms(journal)
    assert verify(outside, checkpoints).records == RECORDS
