"""Tokens: what is accepted, and everything that is not."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.access import AccessDenied, Caller
from api.key_set import KeySetUnusable, is_file, parse, read
from api.tokens import TokenPolicy, UnknownKey, looks_like_token, verify
from tests.api.issuer import AUDIENCE, ISSUER, Issuer

NOW_S = 1_800_000_000.0
ISSUES = Issuer()
STRANGER = Issuer()
KEYS = parse(ISSUES.jwks(), "test")
POLICY = TokenPolicy(ISSUER, AUDIENCE)


def checked(token, *, now_s=NOW_S, policy=POLICY, keys=KEYS):
    return verify(token.encode(), keys, policy, now_s=now_s)


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256", "ES256"])
def test_a_good_token_is_its_caller_until_it_expires(algorithm):
    found = checked(ISSUES.token(NOW_S, algorithm))
    assert found.caller == Caller("demo", frozenset({"analyst"}), "ada")
    assert found.expires_s == NOW_S + 600 + POLICY.leeway_s


@pytest.mark.parametrize(("changes", "message"), [
    ({"exp": NOW_S - 31}, "has expired"),
    ({"exp": None}, '"exp" claim'),
    ({"exp": "soon"}, "exp is no time"),
    ({"exp": True}, "exp is no time"),
    ({"exp": 1e300}, "exp is no time"),
    ({"nbf": NOW_S + 31}, "not valid yet .nbf."),
    ({"iat": NOW_S + 31}, "not valid yet .iat."),
    ({"aud": "other"}, "[Aa]udience"),
    ({"aud": None}, '"aud" claim'),
    ({"iss": "https://other.example"}, "issuer"),
    ({"iss": None}, '"iss" claim'),
    ({"sub": None}, '"sub" claim'),
    ({"sub": "x" * 129}, "sub is a text"),
    ({"tenant": None}, "no tenant"),
    ({"tenant": ["demo"]}, "no tenant"),
])  # fmt: skip
def test_a_claim_that_is_wrong_is_named(changes, message):
    with pytest.raises(AccessDenied, match=message) as caught:
        checked(ISSUES.token(NOW_S, **changes))
    assert caught.value.status == 401


def test_clocks_may_differ_by_the_leeway():
    token = ISSUES.token(NOW_S, exp=int(NOW_S), nbf=int(NOW_S) + 30)
    assert checked(token, now_s=NOW_S + 29).caller.name == "ada"
    with pytest.raises(AccessDenied, match="expired"):
        checked(token, now_s=NOW_S + 30)


@pytest.mark.parametrize("token", [
    ISSUES.unsigned(NOW_S),
    ISSUES.unsigned(NOW_S, "RS256"),
    ISSUES.confused(NOW_S),
    ISSUES.confused(NOW_S, "EdDSA"),
    STRANGER.token(NOW_S),
    STRANGER.token(NOW_S, "RS256"),
    ISSUES.token(NOW_S)[:-4] + "AAAA",
    ISSUES.token(NOW_S).rpartition(".")[0] + ".",
    "ey.ey.ey",
    "ey" + "x" * 9_000 + "..",
    "eyJhbGciOiJFZERTQSIsImtpZCI6WzFdfQ.e30.AAAA",
], ids=["none", "none-rsa", "hs256", "hs256-ed", "foreign", "foreign-rsa", "forged", "cut", "no-json", "long",
        "kid-list"])  # fmt: skip
def test_a_token_that_the_issuer_did_not_sign_is_refused(token):
    with pytest.raises(AccessDenied) as caught:
        checked(token)
    assert caught.value.status == 401


def test_a_key_that_is_not_in_the_set_asks_for_the_keys_again():
    with pytest.raises(UnknownKey):
        checked(Issuer("-new").token(NOW_S))


def test_a_key_verifies_its_own_algorithm_only():
    # The header names the Ed25519 key, the signature is a good one by the RSA key.
    token = jwt.encode(ISSUES.claims(NOW_S), ISSUES.keys["RS256"], "RS256", headers={"kid": "EdDSA"})
    with pytest.raises(AccessDenied, match="signs with EdDSA only"):
        checked(token)


def test_roles_and_tenant_are_found_where_the_policy_says():
    policy = TokenPolicy(ISSUER, AUDIENCE, "realm_access.roles", "https://example.com/tenant")
    token = ISSUES.token(
        NOW_S, roles=["admin"], realm_access={"roles": ["auditor", "other"]},
        **{"https://example.com/tenant": "bank"},
    )  # fmt: skip
    assert checked(token, policy=policy).caller == Caller("bank", frozenset({"auditor"}), "ada")
    assert checked(ISSUES.token(NOW_S, roles="decide analyst x")).caller.roles == {"decide", "analyst"}
    assert checked(ISSUES.token(NOW_S, roles=None)).caller.roles == frozenset()
    assert checked(ISSUES.token(NOW_S, roles={"admin": True})).caller.roles == frozenset()


def test_only_keys_for_signatures_with_these_algorithms_are_kept():
    entries = json.loads(ISSUES.jwks())["keys"]
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}
    sealed = entries[1] | {"kid": "enc", "use": "enc"}
    other = entries[1] | {"kid": "ps", "alg": "PS256"}
    document = json.dumps({"keys": [*entries, secret, sealed, other]}).encode()
    assert sorted(str(kid) for kid in parse(document, "test")) == ["ES256", "EdDSA", "RS256"]
    only_secret = json.dumps({"keys": [secret]}).encode()
    for bad in (b"{}", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b"\xff", only_secret):
        with pytest.raises(KeySetUnusable):
            parse(bad, "test")


def test_a_weak_rsa_key_is_not_kept():
    weak = Issuer()
    weak.keys["RS256"] = rsa.generate_private_key(65_537, 1_024)
    with pytest.raises(KeySetUnusable, match="2048"):
        parse(weak.jwks("RS256"), "test")


def test_keys_come_from_a_file_or_a_place_that_nobody_listens_to(tmp_path):
    assert is_file("/etc/keys.json")
    assert not is_file("https://issuer.example/keys")
    assert not is_file("http://127.0.0.1:1/keys")
    for bad in ("http://issuer.example/keys", "ftp://issuer.example/keys", "https:///keys"):
        with pytest.raises(KeySetUnusable, match="write https"):
            is_file(bad)
    large = tmp_path / "large"
    large.write_bytes(b" " * 300_000)
    for path in (large, tmp_path / "missing"):
        with pytest.raises(KeySetUnusable, match=str(path)):
            read(str(path))


def test_an_api_key_is_not_taken_for_a_token():
    assert looks_like_token(ISSUES.token(NOW_S).encode())
    assert not looks_like_token(b"dev-key")
    assert not looks_like_token(b"eyes.only")
