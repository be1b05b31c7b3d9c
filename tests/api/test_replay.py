"""A past decision made again: the very same from what decided it, or the part that is not what it was."""

import json
import shutil

import pytest

from api.artefacts import Artefacts
from api.decide import Policy
from api.judge import Judge
from api.model import ServingModel
from api.record import decode_json, encode_json
from api.replay import Replayer
from api.rules.rule import EMPTY, RuleSet
from api.rules.shelf import Shelf
from api.rules.told import results_of
from api.serving import open_model
from tests.api.artefact import small_artefact
from tests.api.world import CATALOGUE, NOW_MS, PSEUDONYMS, Bench, transaction

RULES = """
name = "payments"
[lists.stolen]
of = "card"
entry = [{ value = "cd_3", reason = "reported", author = "desk" }]
[[rule]]
id = "stolen_card"
text = "decline if card in @stolen"
reason = "stolen"
owner = "o"
example = [{ given = { card = "cd_3" }, result = "hit" }]
[[rule]]
id = "large"
text = "review if amount > 900.00"
reason = "large_amount"
owner = "o"
rollout_percent = 50
example = [{ given = { amount = 100000 }, result = "hit" }]
[[rule]]
id = "trusted"
text = "allow if card_count_1h >= 3 and channel == \\"ecom\\""
reason = "trusted"
owner = "o"
expires = 2100-01-01
amount_max = 20_000
example = [{ given = { card_count_1h = 4, channel = "ecom" }, result = "hit" }]
"""


def pseudonym(entity: str, id_: str) -> str:
    return PSEUDONYMS.entity(entity, (id_,))


def judge(model: ServingModel, rules: RuleSet) -> Judge:
    return Judge(CATALOGUE, "demo", model, rules, Policy.of(1, "review"), "test", lambda: 0)


class World:
    """A model, a shelf with one set, an engine that decides with both."""

    def __init__(self, path, models) -> None:
        self.models = path / "models"
        shutil.copytree(models, self.models)
        self.shelf = Shelf(path / "sets")
        self.version = self.shelf.put(RULES).version
        self.artefact, self.newer = (self.models / v for v in sorted(p.name for p in self.models.iterdir()))
        self.model = open_model(self.artefact, CATALOGUE)
        policy = Policy.of(10_000, "score_anyway")
        self.bench = Bench(
            path / "journal", serving=self.model, rules=self.artefacts().rules(self.version), policy=policy
        )

    def artefacts(self) -> Artefacts:
        return Artefacts(CATALOGUE, pseudonym, self.models, self.shelf)

    def restarted(self) -> Replayer:
        """As a new process would have it: another champion and other rules are live."""
        other = open_model(self.newer, CATALOGUE)
        return Replayer(judge(other, EMPTY), self.artefacts())

    def decided(self, count: int = 60) -> list[dict]:
        for number in range(count):
            self.bench.decide(
                *(
                    transaction(
                        f"t{number}-{i}", amount=(number * 7_919 + i * 40_009) % 160_000,
                        card=f"cd_{number % 9}", customer=f"cu_{number}",
                        device=f"de_{number % 4}" if i else None,
                        latitude=50.0 + number / 7 if i else None, longitude=8.1 if i else None,
                    )
                    for i in range(1 + number % 4)
                )
            )  # fmt: skip
        # What was recorded, not what was in memory.
        return [decode_json(encode_json(r)) for r in self.bench.journalled()]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    for seed in (1, 7):
        small_artefact(directory, seed=seed)
    return directory


@pytest.fixture
def world(tmp_path, models):
    return World(tmp_path, models)


def test_the_very_same_is_decided_after_a_restart_with_another_champion(world):
    records = world.decided()
    replayer = world.restarted()
    outcomes = set()
    for record in records:
        found = replayer.replay(record, "stored", NOW_MS * 2)
        assert found.same, found.to_json()
        assert found.answer["rules"] == record["rules"]
        assert all(found.answer[part] == record[part] for part in ("no_hit", "not_evaluated"))
        assert found.differences == ()
        outcomes.add((record["outcome"], record["winner"]["by"]))
    assert len(records) > 100
    assert {o for o, _ in outcomes} == {"approve", "challenge", "review", "decline"}
    assert {by for _, by in outcomes} == {"rule", "model"}


def test_degraded_decisions_are_replayed_as_they_were(world):
    class Broken:
        mode = "cpu"
        width = world.model.scorer.width

        def score(self, matrix):
            raise RuntimeError("the scorer broke")

        contributions = score

    world.bench.judge.model = world.model
    world.decided(3)
    object.__setattr__(world.bench.judge.model, "scorer", Broken())
    world.bench.decide(transaction("broken", amount=4_000), transaction("big", amount=60_000))
    world.bench.judge.snoozes = {("stolen_card", pseudonym("card", "cd_3")): NOW_MS + 1}
    world.bench.decide(transaction("snoozed", card="cd_3"))
    records = {r["id"]: r for r in world.bench.journalled()}
    assert records["broken"]["degraded"] == ["model"]
    assert records["broken"]["scored_by"] == "scorecard"
    first = records["snoozed"]["rules"][0]
    assert (first["result"], first["held"]) == ("hit", "snoozed")
    replayer = world.restarted()
    assert all(replayer.replay(r, "stored", 0).same for r in records.values())


@pytest.mark.parametrize(
    ("change", "part", "name"),
    [
        (("900.00", "901.00"), "rule", "large"),
        (('cd_3", reason', 'cd_4", reason'), "list", "stolen"),
        (("amount_max = 20_000", "amount_max = 20_001"), "rule", "trusted"),
    ],
)
def test_a_set_that_was_changed_behind_its_version_is_named(world, change, part, name):
    record = world.decided(2)[0]
    replayer = world.restarted()
    assert replayer.replay(record, "stored", 0).same
    place = world.shelf.files(world.version)[0]
    place.write_text(place.read_text().replace(*change))
    found = replayer.replay(record, "stored", 0)
    assert not found.same
    assert found.answer is None
    assert [(d.part, d.name) for d in found.differences] == [(part, name)]


def test_a_model_that_was_changed_behind_its_version_is_named(world):
    record = world.decided(2)[0]
    member = next(world.artefact.glob("member-0-*"))
    raw = bytearray(member.read_bytes())
    raw[len(raw) // 2] ^= 1
    member.write_bytes(raw)
    (found,) = world.restarted().replay(record, "stored", 0).differences
    assert (found.part, found.name) == ("model", world.artefact.name)
    assert member.name in found.detail


def test_what_is_missing_is_named(world):
    record = world.decided(2)[0]
    for place in world.shelf.files(world.version):
        place.unlink()
    world.artefact.rename(world.models / "elsewhere")
    found = world.restarted().replay(record, "stored", 0)
    assert [(d.part, d.name) for d in found.differences] == [
        ("model", world.artefact.name),
        ("rules", world.version),
    ]
    other = record | {"versions": record["versions"] | {"catalogue": "ffff"}}
    (difference,) = world.restarted().replay(other, "stored", 0).differences
    assert difference.part == "catalogue"


def test_a_record_of_version_1_is_replayed_too(world):
    records = world.decided(9)
    replayer = world.restarted()
    for record in records:
        results = results_of(record).values()
        old = {key: value for key, value in record.items() if key not in ("no_hit", "not_evaluated")} | {
            "v": 1
        }
        old["rules"] = [{"mode": "live", "action": "review", **result} for result in results]
        found = replayer.replay(old, "stored", 0)
        assert found.same
        assert found.differences == ()
        assert "no_hit" not in found.to_json()["recorded"]


def test_a_record_that_was_changed_is_the_codes_difference_with_the_rule_in_it(world):
    record = next(r for r in world.decided(9) if r["winner"]["id"] == "stolen_card")
    rules = [record["rules"][0] | {"result": "no_hit"}, *record["rules"][1:]]
    found = world.restarted().replay(record | {"rules": rules, "score": 1}, "stored", 0)
    assert not found.same
    assert {d.part for d in found.differences} == {"code"}
    assert any("rule stolen_card" in d.detail for d in found.differences)
    assert any(d.detail.startswith("score: 1 then") for d in found.differences)


def test_as_current_asks_todays_model_and_rules(world):
    record = next(r for r in world.decided(9) if r["winner"]["id"] == "stolen_card")
    changed = RULES.replace("900.00", "901.00").replace("cd_3", "cd_5")
    version = world.shelf.put(changed).version
    replayer = Replayer(
        judge(open_model(world.newer, CATALOGUE), world.artefacts().rules(version)),
        world.artefacts(),
    )
    found = replayer.replay(record, "current", NOW_MS)
    assert found.mode == "current"
    assert found.answer is not None
    assert ("list", "stolen") in [(d.part, d.name) for d in found.differences]
    assert ("rule", "large") in [(d.part, d.name) for d in found.differences]
    assert "model" in [d.part for d in found.differences]
    assert found.answer["versions"]["rules"] == version
    assert found.answer["winner"]["id"] != "stolen_card"
    assert json.loads(encode_json(found.to_json()))["same"] is False


def test_the_empty_set_and_a_set_without_a_shelf_can_be_replayed(world):
    world.bench.judge.rules = EMPTY
    record = world.decided(1)[0]
    assert world.restarted().replay(record, "stored", 0).same
    live: RuleSet = world.artefacts().rules(world.version)
    world.bench.judge.rules = live
    world.bench.decide(transaction("later", card="cd_3"))
    record = next(r for r in world.bench.journalled() if r["id"] == "later")
    alone = Replayer(judge(world.model, live), Artefacts(CATALOGUE, pseudonym, world.models, None))
    assert alone.replay(record, "stored", 0).same
    other = Replayer(judge(world.model, EMPTY), Artefacts(CATALOGUE, pseudonym, None, None))
    assert [d.part for d in other.replay(record, "stored", 0).differences] == ["rules"]
