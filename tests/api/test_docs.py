"""What the service has is in its page: routes, problem codes, rules, reason codes, metrics."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from api.metrics import NAMES, MetricName, Metrics
from features.event import Code

PAGE = Path("docs/decision-service.md").read_text()
SOURCES = "".join(path.read_text() for path in Path("api").rglob("*.py"))
RULES = [r for p in Path("deploy/rules").glob("*.toml") for r in tomllib.loads(p.read_text())["rule"]]


def codes() -> set[str]:
    written = set(re.findall(r'Problem\(\s*\d+,\s*"([a-z_]+)"', SOURCES))
    return written | set(get_args(Code))


@pytest.mark.parametrize("name", sorted(codes()))
def test_every_problem_code_is_documented(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("rule", RULES, ids=lambda r: str(r["id"]))
def test_every_shipped_rule_is_documented(rule):
    assert f"`{rule['id']}` (`{rule['reason']}`)" in PAGE


def test_metrics_are_a_closed_documented_set():
    assert set(NAMES) == set(get_args(MetricName))
    assert all(f"`{name}`" in PAGE for name in NAMES)
    text = Metrics().text().decode()
    assert all(f"# HELP {name}" in text for name in NAMES)
    used = set(re.findall(r'metrics\.(?:count|set|observe)\(\s*"(\w+)"', SOURCES))
    assert used == set(NAMES)


def test_every_route_is_documented():
    routes = set(re.findall(r'(?:app|router)\.(?:get|post)\(\s*"([^"]+)"', SOURCES)) | {
        "/v1/decisions",
        "/v1/labels",
        "/v1/events",
    }
    routes.discard("/v1/things")  # the example in guard.py
    assert [route for route in sorted(routes) if route not in PAGE] == []
