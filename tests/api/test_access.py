"""Every route, with every role and without, on a running service: who gets in, and what outsiders learn."""

import contextlib
import http.server
import itertools
import re
import secrets
import threading
import time
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI

from api.access import ROLES, anybody
from api.app import Service, create_app
from api.compose import compose
from api.config import ServiceConfig
from api.guard import GuardedRoute, UndeclaredRoute, check_declared
from api.hot import HotRoutes
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from tests.api.issuer import AUDIENCE, ISSUER, Issuer
from tests.api.processes import Processes, body, wait_for
from tests.api.test_api_keys import entry

pytestmark = pytest.mark.parts
PAGE = Path("docs/access.md").read_text()
ISSUES = Issuer()
STRANGER = Issuer()
KEYS = {role: secrets.token_urlsafe(16) for role in ROLES}
KNOWN = "known-transaction"


@pytest.fixture(scope="module")
def service(tmp_path_factory, ports):
    """A service with a key per role, keys of others, and an issuer; it has decided one transaction."""
    directory = tmp_path_factory.mktemp("access")
    others = [
        entry("bank-key", tenant="bank", roles=list(ROLES)),
        entry("old-key", roles=["admin"], expires="2026-01-01T00:00:00Z"),
    ]
    entries = [entry(key, roles=[role], name=role) for role, key in KEYS.items()]
    (directory / "keys.toml").write_text("\n".join(entries + others))
    node = Valkey(directory / "valkey", ports.take())
    with Stack([node.part()], directory / "parts"):
        made = Processes(
            directory,
            node.url,
            CORDON_ACCESS__KEYS_FILE=str(directory / "keys.toml"),
            CORDON_ACCESS__ISSUER=ISSUER,
            CORDON_ACCESS__AUDIENCE=AUDIENCE,
            CORDON_ACCESS__JWKS=str(ISSUES.write(directory / "jwks.json")),
        )
        _, client = made.service(ports.take())
        client.headers.pop("authorization")
        done = client.post("/v1/decisions", json=body(KNOWN), headers=with_key("decide"))
        assert done.status_code == 200
        yield client
        made.close()


def with_key(role):
    return {"authorization": f"Bearer {KEYS[role]}"}


def with_token(issuer=ISSUES, **changes):
    return {"authorization": f"Bearer {issuer.token(time.time(), **changes)}"}


def operations(client):
    """(method, path, roles) of the whole document."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(m.upper(), p, o["x-roles"]) for p, found in paths.items() for m, o in found.items()]


def ask(client, method, path, headers, id="no-such-id"):
    """One request; every id in the path is `id`."""
    address = re.sub(r"\{\w+\}", id, path.replace("{type}", "card"))
    given: dict[str, str] | None = {} if method in ("POST", "PUT", "PATCH") else None
    return client.request(method, address, headers=headers, json=given)


def test_each_role_gets_in_where_it_is_declared_and_nowhere_else(service):
    found = operations(service)
    assert len(found) >= 9
    for (method, path, roles), role in itertools.product(found, ROLES):
        for headers in (with_key(role), with_token(roles=[role])):
            status = ask(service, method, path, headers).status_code
            allowed = not roles or role in roles
            assert (status not in (401, 403)) is allowed, (method, path, role, status)
            assert allowed or status == 403, (method, path, role, status)
        assert not roles or "admin" in roles


@pytest.mark.parametrize(("credential", "status"), [
    ({}, 401),
    ({"authorization": "Bearer unknown"}, 401),
    ({"authorization": "Bearer dev-key"}, 401),
    ({"authorization": "Basic ZGV2LWtleTo="}, 401),
    ({"x-api-key": ""}, 401),
    ({"x-api-key": "old-key"}, 401),
    ({"x-api-key": "bank-key"}, 403),
    (with_token(exp=int(time.time()) - 60, roles=["admin"]), 401),
    (with_token(nbf=int(time.time()) + 3_600, roles=["admin"]), 401),
    (with_token(STRANGER, roles=["admin"]), 401),
    (with_token(Issuer("-unknown"), roles=["admin"]), 401),
    (with_token(iss="https://other.example", roles=["admin"]), 401),
    (with_token(aud="other", roles=["admin"]), 401),
    ({"authorization": f"Bearer {ISSUES.unsigned(time.time())}"}, 401),
    ({"authorization": f"Bearer {ISSUES.confused(time.time())}"}, 401),
    (with_token(tenant="bank", roles=list(ROLES)), 403),
    (with_token(roles=[]), 403),
    (with_token(roles=["root"]), 403),
])  # fmt: skip
def test_nobody_else_gets_in_anywhere(service, credential, status):
    for method, path, roles in operations(service):
        answer = ask(service, method, path, credential)
        if not roles:
            assert answer.status_code not in (401, 403), path
            continue
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("www-authenticate" in answer.headers) is (status == 401)


def test_an_outsider_does_not_learn_whether_an_id_exists(service):
    outsiders: list[dict[str, str]] = [
        {},
        {"x-api-key": "bank-key"},
        with_token(tenant="bank", roles=["admin"]),
        with_token(STRANGER),
    ]
    for method, path, roles in operations(service):
        if not roles or "{id}" not in path:
            continue
        for headers in outsiders:
            known, unknown = (ask(service, method, path, headers, id) for id in (KNOWN, "no-such-id"))
            assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
            assert dict(known.headers) == dict(unknown.headers)


def test_the_tenant_of_a_body_is_none(service):
    given = body("with-tenant", tenant="bank")
    answer = service.post("/v1/decisions", json=given, headers=with_key("decide"))
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")


def test_a_wrong_credential_is_refused_before_the_body_is_read(service):
    for path in ("/v1/decisions", "/v1/labels", "/v1/events"):
        answer = service.post(path, content=b" " * 70_000, headers={"x-api-key": "unknown"})
        assert answer.status_code == 401
        assert service.post(path, content=b"{", headers=with_key("auditor")).status_code == 403


def test_security_headers_are_on_every_answer(service):
    for method, path, _ in operations(service):
        refused, answered = ask(service, method, path, {}), ask(service, method, path, with_key("admin"))
        for found in (refused.headers, answered.headers):
            assert found["x-content-type-options"] == "nosniff", path
            assert found["cache-control"] == "no-store", path


def test_every_route_of_the_application_is_in_the_document_or_for_anybody(tmp_path, valkey, service):
    processes = Processes(tmp_path, valkey.url)
    config = ServiceConfig.from_environment(processes.environment)
    parts = compose(config, "service-0", time.perf_counter_ns, lambda: 0)
    application = create_app(Service(parts, lambda: 0, time.perf_counter_ns))
    assert isinstance(application, HotRoutes)
    assert isinstance(application.rest, FastAPI)
    documented = {(method, path) for method, path, _ in operations(service)}
    hot = {("POST", path) for path in ("/v1/decisions", "/v1/labels", "/v1/events")}
    routes = guarded(application.rest.routes)
    served = {(method, path.replace(":path}", "}")) for method, path in routes} | hot
    parts.close()
    assert served - documented == {("GET", "/openapi.json")}
    assert documented <= served


def guarded(routes):
    """(method, path) of all routes, those of included routers too; each of them enforces what it declares."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from guarded(included.routes)
        else:
            assert isinstance(route, GuardedRoute)
            assert route.methods
            yield from ((method, route.path) for method in route.methods)


def test_a_route_without_a_declaration_stops_the_start():
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.route_class = GuardedRoute
    with pytest.raises(UndeclaredRoute, match="/v1/secret: write openapi_extra"):
        app.get("/v1/secret")(lambda: None)
    app.get("/v1/open", openapi_extra=anybody())(lambda: None)
    check_declared(app.routes)
    forgotten = APIRouter()
    forgotten.get("/v1/forgotten")(lambda: None)
    app.include_router(forgotten)
    with pytest.raises(UndeclaredRoute, match="/v1/forgotten: use route_class"):
        check_declared(app.routes)


def test_every_route_and_its_roles_are_in_the_page(service):
    for method, path, roles in operations(service):
        row = next((line for line in PAGE.splitlines() if f"| `{method} {path}` |" in line), None)
        assert row is not None, f"{method} {path} is missing in docs/access.md"
        assert set(re.findall(r"`(\w+)`", row.rpartition("|")[0].rpartition("|")[2])) == set(roles) - {
            "admin"
        }
        assert roles or "anybody" in row


def test_keys_of_an_issuer_are_fetched_and_awaited(tmp_path, valkey, ports):
    #  service    503 503 503 | 200
    #  issuer         down    | up
    port = ports.take()
    processes = Processes(
        tmp_path,
        valkey.url,
        CORDON_ACCESS__ISSUER=ISSUER,
        CORDON_ACCESS__AUDIENCE=AUDIENCE,
        CORDON_ACCESS__JWKS=f"http://127.0.0.1:{port}/jwks.json",
    )
    try:
        _, client = processes.service(ports.take())
        client.headers.update(with_token(roles=["decide"]))
        awaited = client.post("/v1/decisions", json=body("a"))
        assert (awaited.status_code, awaited.json()["code"]) == (503, "unavailable_keys")
        assert awaited.headers["retry-after"] == "1"
        assert client.get("/v1/decisions/a").status_code == 503
        with serving(ISSUES.jwks(), port):
            wait_for(lambda: client.post("/v1/decisions", json=body("a")).status_code == 200, 20)
        assert client.get("/v1/decisions/a").status_code == 200
    finally:
        processes.close()


@contextlib.contextmanager
def serving(document, port):
    """An issuer's key set over HTTP, for as long as the block lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
