"""When both clients try again, and what they raise: against a server that misbehaves on purpose."""

import asyncio
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import (
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    InvalidRequest,
    Limits,
    NotFound,
    Refused,
    Retry,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from client.retry import retry_after_s
from tests.client.server import Reply, Script, serving

ACCEPTED = Reply(202, json.dumps({"id": "l", "transaction_id": "a", "replay": False, "newer": 1}).encode())
LABEL = {"label_id": "l", "transaction_id": "a", "time": 1, "fraud": True}


def problem(status, code="code", **headers):
    body = {"type": "t", "title": "Title", "status": status, "code": code, "detail": "why", "field": "amount"}
    return Reply(status, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()})


class Sender:
    """Labels through one kind of client; the waits between attempts are noted, not slept."""

    def __init__(self, kind, url, **options):
        self.waits = []
        self.kind = kind
        self.options = {"url": url, "credential": "k", "random": lambda: 0.5} | options

    def label(self):
        return self._blocking() if self.kind == "blocking" else asyncio.run(self._awaited())

    def _blocking(self):
        with Client(**self.options, sleep=self.waits.append) as client:
            return client.label(LABEL)

    async def _awaited(self):
        async def sleep(seconds):
            self.waits.append(seconds)

        async with AsyncClient(**self.options, sleep=sleep) as client:
            return await client.label(LABEL)


@pytest.fixture(params=["blocking", "awaited"])
def sender(request):
    return lambda url, **options: Sender(request.param, url, **options)


def test_what_may_help_is_tried_again_and_the_service_says_when(sender):
    script = Script(
        problem(503, "overloaded", retry_after="2"),
        problem(429),
        Reply(502, b"<html>"),
        Reply(body=None),
        ACCEPTED,
    )
    with serving(script) as url:
        made = sender(url)
        assert made.label().id == "l"
    assert made.waits == [2 + 0.025, 0.05, 0.1, 0.2]
    assert len({body for _, _, body in script.asked}) == 1
    assert json.loads(script.asked[0][2]) == LABEL


@pytest.mark.parametrize(("status", "error"), [
    (400, InvalidRequest), (401, Unauthorized), (403, Forbidden), (404, NotFound), (409, Conflict),
    (413, InvalidRequest), (422, InvalidRequest), (418, InvalidRequest),
])  # fmt: skip
def test_a_refusal_is_typed_and_not_repeated(sender, status, error):
    script = Script(problem(status))
    with serving(script) as url, pytest.raises(error) as caught:
        sender(url).label()
    assert len(script.asked) == 1
    assert isinstance(caught.value, Refused)
    assert (caught.value.problem.status, caught.value.problem.field) == (status, "amount")
    assert str(caught.value) == f"{status} code: why"


def test_it_gives_up_after_the_attempts_and_keeps_what_was_said(sender):
    script = Script(problem(503, "overloaded", retry_after="1"))
    with serving(script) as url, pytest.raises(Unavailable) as caught:
        sender(url, retry=Retry(attempts=3)).label()
    assert len(script.asked) == 3
    assert caught.value.problem is not None
    assert (caught.value.problem.code, caught.value.retry_after_s) == ("overloaded", 1.0)


def test_a_service_that_wants_more_patience_than_there_is_is_not_waited_for(sender):
    script = Script(problem(503, retry_after="31"))
    with serving(script) as url, pytest.raises(Unavailable):
        sender(url).label()
    assert len(script.asked) == 1


def test_a_slow_answer_is_asked_for_again(sender):
    script = Script(Reply(wait_s=5.0), ACCEPTED)
    with serving(script) as url:
        assert sender(url, limits=Limits(answer_s=0.2)).label().id == "l"
    assert len(script.asked) == 2


def test_nobody_there_is_unavailable(sender):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        made = sender(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable) as caught:
            made.label()
    assert len(made.waits) == 4
    assert caught.value.problem is None


@pytest.mark.parametrize("reply", [
    Reply(200, b"<html>"), Reply(200, b"{}"), Reply(200, b'{"id": 1, "transaction_id": "a", "replay": 0}'),
    Reply(302, b"", {"location": "http://127.0.0.1:1/"}), Reply(500, b"oops"),
])  # fmt: skip
def test_what_no_service_answers_is_unexpected(sender, reply):
    script = Script(reply)
    with serving(script) as url, pytest.raises(UnexpectedAnswer):
        sender(url).label()
    assert len(script.asked) == 1


@given(
    st.integers(1, 10), st.none() | st.floats(0, 100), st.floats(0, 1), st.integers(1, 10), st.floats(0, 10)
)
def test_waits_are_bounded_and_never_shorter_than_asked(attempt, asked_s, random, attempts, wait_s_max):
    retry = Retry(attempts=attempts, wait_s_max=wait_s_max)
    wait_s = retry.wait_s(attempt, asked_s, random)
    if attempt >= attempts or (asked_s or 0) > retry.retry_after_s_max:
        assert wait_s is None
    else:
        assert wait_s is not None
        assert (asked_s or 0) <= wait_s <= (asked_s or 0) + wait_s_max


@pytest.mark.parametrize(("text", "seconds"), [
    ("1", 1.0), ("0.5", 0.5), ("", None), ("-1", None), ("soon", None), ("1e9", None), ("٣", None),
    ("Fri, 31 Dec 2027 23:59:59 GMT", None),
])  # fmt: skip
def test_retry_after_is_seconds_or_nothing(text, seconds):
    assert retry_after_s({"retry-after": text}) == seconds
