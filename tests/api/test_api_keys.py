"""API keys and the gate that looks them up, in this process; test_access.py has the running service."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.access import AccessConfig, AccessDenied, Caller, allow, anybody, declared
from api.api_keys import KeysUnusable, digest, of_file, of_setting
from api.gate import REMEMBERED_MAX, Gate, KeysAwaited
from api.key_set import parse
from cordon.main import app
from tests.api.issuer import AUDIENCE, ISSUER, Issuer

NOW_MS = 1_800_000_000_000
ISSUES = Issuer()


def bearer(credential):
    return [(b"host", b"x"), (b"authorization", f"Bearer {credential}".encode())]


def entry(key, **changes):
    fields = {
        "name": "shop",
        "sha256": digest(key.encode()).hex(),
        "tenant": "demo",
        "roles": ["decide"],
    } | changes
    # JSON's texts and lists are TOML's as well.
    lines = [f"{k} = {v if k == 'expires' else json.dumps(v)}" for k, v in fields.items() if v is not None]
    return "[[key]]\n" + "\n".join(lines) + "\n"


def written(tmp_path, *entries):
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(entries))
    return path


def with_file(path, **more):
    return Gate(AccessConfig(keys_file=path, **more), "demo", lambda: NOW_MS)


def test_keys_of_the_setting():
    gate = Gate(AccessConfig(keys="k1=decide, k=2=auditor"), "demo", lambda: NOW_MS)
    assert gate.caller(bearer("k1")) == Caller("demo", frozenset({"decide"}), "key-1")
    assert gate.caller([(b"x-api-key", b"k=2")]).roles == {"auditor"}
    for headers in ([], bearer("k3"), bearer(""), [(b"authorization", b"Basic k1")]):
        with pytest.raises(AccessDenied) as caught:
            gate.caller(headers)
        assert caught.value.status == 401
    for bad in ("k1", "=admin", "k=root"):
        with pytest.raises(KeysUnusable, match="KEY=ROLE"):
            of_setting(bad, "demo")


def test_keys_of_a_file_have_name_tenant_roles_and_an_end(tmp_path):
    path = written(
        tmp_path,
        entry("a", roles=["analyst", "approver"]),
        entry("b", tenant="bank", roles=["admin"]),
        entry("c", expires="2027-01-15T08:00:01Z"),
        entry("d", expires="2027-01-15T08:00:00Z"),
    )
    gate = with_file(path)
    assert gate.caller(bearer("a")) == Caller("demo", frozenset({"analyst", "approver"}), "shop")
    assert gate.caller(bearer("c")).roles == {"decide"}
    with pytest.raises(AccessDenied, match="another tenant") as caught:
        gate.caller(bearer("b"))
    assert caught.value.status == 403
    with pytest.raises(AccessDenied, match="expired"):
        gate.caller(bearer("d"))


@pytest.mark.parametrize(("text", "message"), [
    ("key = 1", "holds .*key.* tables"),
    ("[[keys]]", "holds .*key.* tables"),
    ("[[key", "keys.toml: "),
    (entry("a", sha256="AB"), "key 1: sha256 is 64"),
    (entry("a", roles=["root"]), "key 1: roles is a list of decide"),
    (entry("a", roles=[]), "key 1: roles"),
    (entry("a", tenant=None), "key 1: tenant is missing"),
    (entry("a", secret="a"), "key 1: no field secret"),
    (entry("a", expires="2027-01-15T08:00:00"), "expires is a time with an offset"),
    (entry("a") + entry("a"), "key 2: the same sha256"),
])  # fmt: skip
def test_a_wrong_file_says_where(tmp_path, text, message):
    with pytest.raises(KeysUnusable, match=message):
        of_file(written(tmp_path, text))


def test_a_missing_file_stops_the_start(tmp_path):
    with pytest.raises(KeysUnusable, match="No such file"):
        with_file(tmp_path / "keys.toml")


def test_the_key_that_everybody_knows_counts_only_where_nothing_else_is_configured(tmp_path):
    assert Gate(AccessConfig(), "demo", lambda: NOW_MS).caller(bearer("dev-key")).roles == {"admin"}
    path = written(tmp_path, entry("a"))
    with pytest.raises(AccessDenied, match="unknown API key"):
        with_file(path).caller(bearer("dev-key"))
    assert with_file(path, keys="own=admin").caller(bearer("own")).roles == {"admin"}


def test_tokens_need_issuer_audience_and_keys(tmp_path):
    with pytest.raises(KeysUnusable, match="CORDON_ACCESS__AUDIENCE"):
        Gate(AccessConfig(issuer=ISSUER), "demo", lambda: NOW_MS)


def token_gate(tmp_path, clock=lambda: NOW_MS, **more):
    path = ISSUES.write(tmp_path / "jwks.json")
    config = AccessConfig(issuer=ISSUER, audience=AUDIENCE, jwks=str(path), **more)
    return Gate(config, "demo", clock)


def test_a_remembered_token_ends_with_its_expiry_and_with_its_key(tmp_path):
    now_ms = [NOW_MS]
    gate = token_gate(tmp_path, lambda: now_ms[0])
    token = ISSUES.token(NOW_MS / 1_000)
    assert gate.caller(bearer(token)) is gate.caller(bearer(token))
    now_ms[0] = NOW_MS + 629_999
    assert gate.caller(bearer(token)).name == "ada"
    now_ms[0] = NOW_MS + 630_000
    with pytest.raises(AccessDenied, match="expired"):
        gate.caller(bearer(token))
    now_ms[0] = NOW_MS
    assert gate.caller(bearer(token)).name == "ada"
    gate._adopt(parse(Issuer("-next").jwks(), "test"))
    with pytest.raises(AccessDenied, match="unknown key"):
        gate.caller(bearer(token))


def test_what_is_remembered_is_bounded(tmp_path):
    gate = token_gate(tmp_path)
    tokens = [ISSUES.token(NOW_MS / 1_000, sub=f"s{i}") for i in range(50)]
    gate._remembered.update((str(i).encode(), None) for i in range(REMEMBERED_MAX - 10))
    for token in tokens:
        gate.caller(bearer(token))
    assert len(gate._remembered) == REMEMBERED_MAX
    assert gate.caller(bearer(tokens[0])).name == "s0"


def test_another_tenants_token_is_403_and_one_without_roles_is_nobodys(tmp_path):
    gate = token_gate(tmp_path)
    with pytest.raises(AccessDenied, match="another tenant") as caught:
        gate.caller(bearer(ISSUES.token(NOW_MS / 1_000, tenant="bank", roles=["admin"])))
    assert caught.value.status == 403
    assert gate.caller(bearer(ISSUES.token(NOW_MS / 1_000, roles=[]))).roles == frozenset()


def test_a_revoked_key_is_refused_within_a_second_and_a_broken_file_locks_nobody_out(tmp_path):
    path = written(tmp_path, entry("a"), entry("b", name="other"))
    gate = with_file(path)

    async def course():
        following = asyncio.create_task(gate.follow())
        assert accepted(gate, "a")
        path.write_text(entry("b", name="other"))
        await until(lambda: not accepted(gate, "a"))
        assert accepted(gate, "b")
        path.write_text("[[key")
        os.utime(path, ns=(1, 1))
        await asyncio.sleep(1.5)
        assert accepted(gate, "b")
        path.write_text(entry("a"))
        await until(lambda: accepted(gate, "a"))
        assert not accepted(gate, "b")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(course())


def accepted(gate, key):
    try:
        return bool(gate.caller(bearer(key)))
    except AccessDenied:
        return False


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.02)


def test_keys_of_an_issuer_that_cannot_be_reached_are_awaited_not_refused():
    config = AccessConfig(issuer=ISSUER, audience=AUDIENCE, jwks="http://127.0.0.1:1/keys")
    gate = Gate(config, "demo", lambda: NOW_MS)
    with pytest.raises(KeysAwaited):
        gate.caller(bearer(ISSUES.token(NOW_MS / 1_000)))
    with pytest.raises(AccessDenied):
        gate.caller(bearer("no-token"))


def test_declarations():
    assert declared(allow("analyst")) == frozenset(("analyst", "admin"))
    assert declared(anybody()) == frozenset()
    assert declared(None) is None
    assert declared({}) is None
    with pytest.raises(ValueError, match="no such role: analist"):
        declared({"x-roles": ["analist"]})


def test_a_new_key_opens_the_gate_that_reads_its_entry(tmp_path):
    words = ["access", "new-key", "shop", "--role", "decide", "--role", "analyst", "--days", "30"]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0
    key = made.stderr.strip().rpartition(" ")[2]
    assert key not in made.stdout
    path = Path(tmp_path / "keys.toml")
    path.write_text(made.stdout + CliRunner().invoke(app, [*words[:3], "--role", "admin"]).stdout)
    found = of_file(path)
    assert found[digest(key.encode())].caller == Caller("demo", frozenset({"decide", "analyst"}), "shop")
    assert len(found) == 2
    assert CliRunner().invoke(app, ["access", "new-key", "x", "--role", "root"]).exit_code == 2
