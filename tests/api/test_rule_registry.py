"""From draft to live: two people, immutable versions, one pointer; refused steps change nothing."""

import json
import threading

import pytest

from api.audit.anchors import read_anchors
from api.audit.logbook import note
from api.rules.budget import check_budget
from api.rules.feed import Feed, Update
from api.rules.load import RuleSetError, build
from api.rules.registry import Refused, Registry, waiting
from api.rules.rule import RuleSet, Snooze
from api.rules.shelf import SetChanged, SetMissing
from api.rules.trips import Trip
from api.rules.vocabulary import vocabulary_of
from features import load

WORDS = vocabulary_of(load("payments"))
RULE = """
name = "t"
[lists.l]
of = "card"
entry = [{{ value = "c", reason = "r", author = "a" }}]
[[rule]]
id = "a"
text = "decline if score > {0}"
reason = "r"
owner = "o"
example = [{{ given = {{ score = 1000 }}, result = "hit" }}]
[[rule]]
id = "b"
text = "review if card in @l"
reason = "r"
owner = "o"
example = [{{ given = {{ card = "c" }}, result = "hit" }}]
"""


def text(threshold: int = 500) -> str:
    return RULE.format(threshold)


def opened(registry: Registry, version: str) -> RuleSet:
    return build(registry.shelf.text(version), WORDS, lambda _, v: v)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "rules")


def test_a_proposal_is_live_once_another_person_approves_it(registry):
    heard: list[tuple[str, int]] = []
    registry = Registry(registry.directory, lambda step: heard.append((step.kind, step.number)))
    first = registry.propose(text(), "ada", 1, base="file-1")
    assert registry.live() is None
    assert [s.number for s in waiting(registry.steps(), registry.live())] == [1]
    for same in ("ada", " ADA "):
        with pytest.raises(Refused, match="another person must approve"):
            registry.approve(1, same, 2)
    registry.approve(1, "bo", 2)
    live = registry.live()
    assert live is not None
    assert (live.number, live.version) == (1, first.version)
    assert opened(registry, live.version).rules[0].id == "a"
    with pytest.raises(Refused, match="approved before"):
        registry.approve(1, "cy", 3)
    with pytest.raises(Refused, match="live already"):
        registry.propose(text(), "ada", 3, base="")
    assert heard == [("proposed", 1), ("approved", 1)]


def test_a_proposal_on_what_is_no_longer_live_must_be_looked_at_again(registry):
    for threshold in (1, 2):
        registry.propose(text(threshold), "ada", 1, base="file")
    registry.approve(2, "bo", 2)
    with pytest.raises(Refused, match="is live since"):
        registry.approve(1, "bo", 3)
    assert waiting(registry.steps(), registry.live()) == []
    assert registry.live().number == 2


def test_rolling_back_reaches_approved_sets_only(registry):
    with pytest.raises(Refused, match="nothing to go back to"):
        registry.roll_back(None, "bo", 1)
    for number, threshold in enumerate((1, 2, 3), 1):
        registry.propose(text(threshold), "ada", number, base="file")
        if number < 3:
            registry.approve(number, "bo", number)
    with pytest.raises(Refused, match="never approved"):
        registry.roll_back(3, "bo", 9)
    registry.roll_back(None, "cy", 9)
    assert registry.live().number == 1
    registry.roll_back(2, "cy", 9)
    assert registry.live().number == 2
    with pytest.raises(Refused, match="live already"):
        registry.roll_back(2, "cy", 9)
    kinds = [s.kind for s in registry.steps()]
    assert kinds == ["proposed", "approved"] * 2 + ["proposed", "rolled_back", "rolled_back"]


def test_what_cannot_be_recorded_does_not_happen(registry):
    registry.propose(text(), "ada", 1, base="")

    def unwritable(_: object) -> None:
        raise OSError("no space")

    broken = Registry(registry.directory, unwritable)
    with pytest.raises(OSError, match="no space"):
        broken.approve(1, "bo", 2)
    assert registry.live() is None
    assert len(registry.steps()) == 1


def test_after_a_crash_before_the_pointer_the_next_step_finds_it_moved(registry):
    registry.propose(text(), "ada", 1, base="")
    registry.approve(1, "bo", 2)
    (registry.directory / "live.json").unlink()
    registry.propose(text(2), "ada", 3, base="")
    live = registry.live()
    assert live is not None
    assert live.number == 1


def test_steps_are_a_chain(registry):
    for threshold in (1, 2, 3):
        registry.propose(text(threshold), "ada", 1, base="")
    second = registry.directory / "steps" / "000002.json"
    kept = second.read_text()
    second.write_text(kept.replace("ada", "eve"))
    with pytest.raises(Refused, match="does not continue"):
        registry.steps()
    second.unlink()
    with pytest.raises(Refused, match="does not continue"):
        registry.steps()


def test_a_version_is_content_and_changes_behind_it_are_named(registry):
    step = registry.propose(text(), "ada", 1, base="")
    assert (
        registry.shelf.put(text().replace("\n[[rule]]", "\n# a comment\n\n[[rule]]")).version == step.version
    )
    place, manifest = registry.shelf.files(step.version)
    kept = place.read_text()
    place.write_text(kept.replace("score > 500", "score > 501").replace('"c", reason', '"d", reason'))
    with pytest.raises(SetChanged, match="rule a, list l changed"):
        registry.shelf.text(step.version)
    with pytest.raises(SetChanged):
        registry.approve(1, "bo", 2)
    assert registry.live() is None
    place.write_text(kept)
    manifest.write_text(manifest.read_text().replace('"t"', '"u"'))
    with pytest.raises(SetChanged, match="manifest"):
        registry.shelf.text(step.version)
    with pytest.raises(SetMissing):
        registry.shelf.text("t-000000000000")


def test_steps_of_several_people_at_once_are_all_taken_in_turn(registry):
    def publish(number: int) -> None:
        registry.propose(text(number), f"p{number}", number, base="")

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(s.number for s in registry.steps()) == list(range(1, 9))


def test_the_feed_gives_what_is_live_and_keeps_it_where_the_next_is_unusable(registry):
    sets: dict[str, RuleSet] = {}
    feed = Feed(registry, lambda version: sets.setdefault(version, opened(registry, version)))
    update = feed.read()
    assert update is not None
    assert update.rules is None
    assert not feed.changed()
    first = registry.propose(text(), "ada", 1, base="")
    assert not feed.changed()
    registry.approve(1, "bo", 2)
    assert feed.changed()
    update = feed.read()
    assert update is not None
    assert update.rules is not None
    assert update.rules.version == first.version
    registry.snooze(Snooze("a", "card:1", 50, "cy", "known customer"), 10)
    assert feed.changed()
    assert feed.read() == Update(update.rules, {("a", "card:1"): 50})
    registry.snooze(Snooze("a", "card:1", 10, "cy", "wake"), 10)
    assert feed.read() == Update(update.rules, {})
    trip = registry.trip("a", 0, 90, "brakes", 20, "too many")
    assert trip is not None
    assert feed.changed()
    held = Trip("a", trip.sequence, 20, 90, "too many")
    assert feed.read() == Update(update.rules, {}, {"a": held})
    assert held.holds(89)
    assert not held.holds(90)
    assert registry.trip("a", 0, 95, "brakes", 21, "another process, too late") is None
    with pytest.raises(Refused, match="b has not tripped; tripped: a"):
        registry.reset("b", "cy", 30, "looked at it")
    reset = registry.reset("a", "cy", 30, "looked at it")
    assert reset is not None
    assert registry.trips() == [Trip("a", reset.sequence, 30, 30, "looked at it")]
    assert [s.kind for s in registry.steps()][-2:] == ["tripped", "reset"]
    assert feed.read() is not None
    (registry.directory / "live.json").write_text(json.dumps({"number": 2, "version": "t-0"}))
    assert feed.changed()
    assert feed.read() is None
    assert not feed.changed()


def test_a_rule_over_its_budget_is_refused():
    clock = iter(range(0, 10**12, 7))
    assert check_budget(build(text(), WORDS, lambda _, v: v), lambda: next(clock)) < 1_000
    slow = iter(range(0, 10**15, 50_000))
    with pytest.raises(RuleSetError, match=r"rule a: .* the budget is 1000 ns"):
        check_budget(build(text(), WORDS, lambda _, v: v), lambda: next(slow))


def test_what_is_recorded_of_rules_is_no_damaged_anchor(tmp_path):
    """An outsider may be given the topic of checkpoints as a file: audit records are in it as well."""
    record = note(tmp_path / "journals", "rules_approved", {"by": "bo"}, id="rules-1", time_ms=1, tenant="t")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "topic.jsonl").write_bytes(record + b"\n" + b'{"type":"checkpoint"}\n')
    assert [line.line for line in read_anchors(tmp_path / "copy").illegible] == [2]
