"""Webhooks: signatures, retries, forbidden targets, the durable box, deliveries to real receivers."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.metrics import Metrics
from api.webhooks.box import Box, Subscription
from api.webhooks.dispatcher import Dispatcher, Policy
from api.webhooks.event import EVENTS, event_of, unknown, wanted
from api.webhooks.schedule import Retries
from api.webhooks.signature import Key, sign, verify
from api.webhooks.target import ForbiddenTarget, check_url, target_of
from tests.api.webhooks.receiver import Receiver

PAGE = Path("docs/webhooks.md").read_text()
NEW, OLD = Key("k2", "new"), Key("k1", "old", until_ms=9_000_000)
RECORD = {
    "type": "decision", "id": "t1", "decided_ms": 5, "tenant": "demo", "outcome": "decline", "score": 900,
    "reasons": [{"code": "AMOUNT", "text": "secret", "weight": 1.0}], "degraded": [],
    "versions": {"model": "m"}, "transaction": {"card": "pseudonym"},
}  # fmt: skip


@given(body=st.binary(max_size=200), at_s=st.integers(0, 2**40), late_s=st.integers(-900, 900))
def test_a_signature_holds_for_its_body_its_time_and_each_key(body, at_s, late_s):
    headers = sign([NEW, OLD], body, at_s)
    for secrets in ({"k2": "new"}, {"k1": "old"}, {"k1": "old", "k2": "new"}):
        assert verify(secrets, headers, body, at_s + late_s) == (abs(late_s) <= 300)
    assert not verify({"k2": "old"}, headers, body, at_s)
    assert not verify({"k2": "new"}, headers, body + b"x", at_s)
    assert not verify({"k2": "new"}, {**headers, "cordon-timestamp": str(at_s + 1)}, body, at_s)
    assert not verify({"k2": "new"}, {}, body, at_s)


def test_the_example_of_the_page_verifies():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict = {}
    exec(code, found)
    headers = sign([NEW, OLD], b'{"id": "1"}', 1_760_000_000)
    assert found["is_genuine"](headers, b'{"id": "1"}', {"k1": "old"}, 1_760_000_100)
    assert found["is_genuine"](headers, b'{"id": "1"}', {"k2": "new"}, 1_760_000_100)
    assert not found["is_genuine"](headers, b'{"id": "2"}', {"k2": "new"}, 1_760_000_100)
    assert not found["is_genuine"](headers, b'{"id": "1"}', {"k2": "new"}, 1_760_000_301)


def test_every_event_is_on_the_page():
    assert all(f"`{name}`" in PAGE for name in EVENTS if not name.startswith("alert."))
    assert "alert.CODE" in PAGE


@given(attempts=st.integers(1, 20), share=st.floats(0, 1), now_ms=st.integers(0, 2**42))
def test_waits_double_up_to_a_longest_and_end(attempts, share, now_ms):
    retries = Retries(12, 2_000, 60_000)
    found = retries.next_ms(attempts, now_ms, share)
    if attempts >= 12:
        assert found is None
    else:
        assert found is not None
        assert 1 <= found - now_ms <= min(60_000, 2_000 * 2 ** (attempts - 1))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "http://", "gopher://x/", "http://127.0.0.1/", "http://[::1]/",
        "http://10.1.2.3/", "http://192.168.0.1/", "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/",
        "http://0.0.0.0/", "http://localhost/", "http://x.localhost/", "http://db.internal/", "http://224.0.0.1/",
        "http://[::ffff:127.0.0.1]/", "http://[2002:7f00:1::]/", "http://100.64.0.1/", "http://u:p@example.com/",
        "http://example.com:99999/", "http://exa mple.com/", "http://[fd00::1]/", "https://" + "a" * 3_000,
    ],
)  # fmt: skip
def test_what_is_inside_or_no_web_address_is_forbidden(url):
    with pytest.raises(ForbiddenTarget):
        target_of(url, lambda name, port: ["93.184.216.34"], inside=False)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "2130706433"]
)
def test_a_name_that_leads_inside_is_forbidden_even_beside_a_public_address(address):
    with pytest.raises((ForbiddenTarget, ValueError)):
        target_of("https://example.com/", lambda name, port: ["93.184.216.34", address], inside=False)


def test_the_address_that_was_checked_is_the_one_that_is_called():
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    target = target_of("https://example.com:8443/a?b=c", lambda name, port: next(answers), inside=False)
    assert (target.url, target.host, target.name) == (
        "https://93.184.216.34:8443/a?b=c", "example.com:8443", "example.com",
    )  # fmt: skip
    check_url("http://127.0.0.1:8080/", inside=True)
    with pytest.raises(ForbiddenTarget):
        check_url("http://0.0.0.0/", inside=True)


def test_events_say_codes_and_no_personal_data():
    found = event_of(RECORD)
    assert found is not None
    assert (found.type, found.data["reasons"]) == ("decision.decline", ["AMOUNT"])
    assert "pseudonym" not in json.dumps(found.to_json())
    assert event_of({"type": "label", "id": "l"}) is None
    assert event_of({"type": "checkpoint"}) is None
    resolved = {"type": "audit", "event": "case_resolved", "id": "c1", "time_ms": 3, "case_id": "t7"}
    ended = event_of({**resolved, "resolution": "fraud", "note": "called Ada"})
    assert ended is not None
    assert (ended.type, dict(ended.data)) == ("case.resolved", {"case_id": "t7", "resolution": "fraud"})
    finished = {"type": "alert", "code": "batch_finished", "severity": "info", "id": "b", "time_ms": 1}
    batch = event_of({**finished, "detail": "", "about": {}})
    assert batch is not None
    assert batch.type == "batch.finished"
    patterns = (["*"], ["decision.*"], ["alert.*"], ["decision.decline"])
    assert [wanted(p, "decision.decline") for p in patterns] == [True, True, False, True]
    assert unknown(["*", "alert.*", "decision.approve", "decision.refuse", "x.*"]) == [
        "decision.refuse",
        "x.*",
    ]


def subscribed(box: Box, id_: str, url: str, *events: str) -> Subscription:
    made = Subscription(id_, url, events or ("*",), (NEW,), 1, "ada")
    box.put(made)
    return made


def events_of(count: int, start: int = 0):
    return [e for n in range(count) if (e := event_of({**RECORD, "id": f"t{start + n}"})) is not None]


def test_the_box_takes_an_event_once_and_moves_positions_with_it(tmp_path):
    box = Box(tmp_path / "box.sqlite")
    subscribed(box, "a", "http://x/")
    subscribed(box, "b", "http://y/", "alert.*")
    assert box.take_in(events_of(3), {("decisions", 0): 3}, 10) == 3
    box.close()
    box = Box(tmp_path / "box.sqlite")
    assert box.positions() == {("decisions", 0): 3}
    assert box.take_in(events_of(5), {("decisions", 0): 5}, 10) == 2
    assert (tmp_path / "box.sqlite").stat().st_mode & 0o077 == 0
    first = box.due("a", 10, 2, ())
    assert [d.event for d in first] == ["decision-t0-5", "decision-t1-5"]
    assert [d.event for d in box.due("a", 10, 2, [d.number for d in first])] == [
        "decision-t2-5",
        "decision-t3-5",
    ]
    box.delivered(first[0].number, 20)
    box.failed(first[1].number, "answered 500", 99, 20)
    assert [d.event for d in box.due("a", 98, 9, ())] == [f"decision-t{n}-5" for n in (2, 3, 4)]
    assert [d.attempts for d in box.due("a", 99, 1, ())] == [1]
    box.failed(first[1].number, "answered 500", None, 100)
    assert [(d.event, d.error) for d in box.dead("a", 9)] == [("decision-t1-5", "answered 500")]
    assert box.counts() == {("a", "waits"): 3, ("a", "dead"): 1}
    assert box.redeliver("a", 200) == 1
    assert box.due("a", 200, 1, ())[0].attempts == 0
    box.tidy(20 + 3_600_001)
    assert box.take_in(events_of(1), {}, 10) == 1
    assert box.delete("a")
    assert box.counts() == {}
    assert not box.delete("a")
    box.close()


async def dispatched(
    box: Box, until, *, inside: bool = True, policy: Policy | None = None, seconds: float = 15
) -> None:
    """Run a dispatcher until a condition holds."""
    chosen = policy or Policy(Retries(3, 20, 50), 4, 1.0, inside)
    made = Dispatcher(box, chosen, Metrics(), lambda: time.time_ns() // 1_000_000, lambda: 0.5, resolved)
    work = asyncio.create_task(made.run())
    until_s = time.monotonic() + seconds
    while not until() and time.monotonic() < until_s and not work.done():
        await asyncio.sleep(0.02)
    made.stopping = True
    await work
    assert until()


def resolved(name: str, port: int) -> list[str]:
    return [name]


@pytest.fixture
def receivers():
    made: list[Receiver] = []

    def make(**options) -> Receiver:
        made.append(Receiver(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_slow_and_dead_receivers_hold_up_nobody(tmp_path, receivers):
    box = Box(tmp_path / "box.sqlite")
    slow, dead = receivers(wait_s=5.0), receivers(answer=lambda _: 500)
    good = receivers()
    for name, receiver in (("a", slow), ("b", dead), ("c", good)):
        subscribed(box, name, receiver.url)
    box.take_in(events_of(40), {}, 0)
    started = time.monotonic()
    asyncio.run(dispatched(box, lambda: len(good.got) == 40))
    assert time.monotonic() - started < 6
    assert [json.loads(body)["data"]["transaction_id"] for _, body in good.got][:4] != []
    assert len({json.loads(body)["id"] for _, body in good.got}) == 40
    for headers, body in good.got:
        assert verify({"k2": "new"}, headers, body, int(time.time()))
        assert headers["cordon-event"] == "decision.decline"
    assert len({headers["cordon-delivery"] for headers, _ in good.got}) == 40
    # No more than four at once were sent to the slow one.
    assert len(slow.got) <= 4 * 6
    box.close()


def test_what_fails_is_tried_again_then_dead_then_redelivered(tmp_path, receivers):
    box = Box(tmp_path / "box.sqlite")
    flaky = receivers(answer=lambda number: 503 if number == 1 else 200)
    gone = receivers(answer=lambda _: 500)
    subscribed(box, "a", flaky.url)
    subscribed(box, "b", gone.url)
    box.take_in(events_of(1), {}, 0)
    asyncio.run(dispatched(box, lambda: bool(box.dead("b", 1)) and len(flaky.got) == 2))
    assert len(gone.got) == 3
    assert flaky.got[0][0]["cordon-delivery"] == flaky.got[1][0]["cordon-delivery"]
    gone.answer = lambda _: 204
    assert box.redeliver("b", 0) == 1
    asyncio.run(dispatched(box, lambda: len(gone.got) == 4 and not box.counts()))
    box.close()


def test_redirects_are_not_followed_and_nothing_inside_is_called(tmp_path, receivers):
    box = Box(tmp_path / "box.sqlite")
    secret = receivers()
    moved = receivers(answer=lambda _: 302, location=secret.url)
    subscribed(box, "a", moved.url)
    box.take_in(events_of(1), {}, 0)
    asyncio.run(dispatched(box, lambda: bool(box.dead("a", 1))))
    assert box.dead("a", 1)[0].error == "answered 302"
    assert (len(moved.got), secret.got) == (3, [])
    subscribed(box, "b", secret.url)
    box.take_in(events_of(1, 5), {}, 0)
    asyncio.run(dispatched(box, lambda: bool(box.dead("b", 1)), inside=False))
    assert "no public address" in box.dead("b", 1)[0].error
    assert secret.got == []
    box.close()
