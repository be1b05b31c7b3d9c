"""The analyst's guide runs: its sets load, its rules compile, its errors are the real ones."""

import re
from pathlib import Path

import pytest

from api.rules.check import check
from api.rules.lists import WatchList
from api.rules.load import _RULE_KEYS, build
from api.rules.registry import Registry
from api.rules.syntax import ACTIONS, FUNCTIONS, RuleError, parse
from api.rules.vocabulary import vocabulary_of
from cordon.commands.rules import app
from features import load

PAGE = Path("docs/rules.md").read_text()
WORDS = vocabulary_of(load("payments"))
LISTS = {"stolen_cards": WatchList("stolen_cards", "card", {})}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_sets_load(text):
    assert build(text, WORDS, lambda entity, value: f"{entity}:{value}").rules


@pytest.mark.parametrize("text", "".join(blocks("rule")).splitlines())
def test_rules_compile(text):
    check(parse(text), WORDS, {}, LISTS)


@pytest.mark.parametrize("block", blocks("refused"))
def test_errors_are_the_real_ones(block):
    text, message = block.split("\n---\n")
    with pytest.raises(RuleError) as caught:
        check(parse(text), WORDS, {}, LISTS)
    assert str(caught.value) == message.rstrip("\n")


def test_everything_is_there():
    assert len(blocks("rule")) >= 2
    assert all(f"`{key}`" in PAGE for key in _RULE_KEYS)
    assert all(f"`{word}`" in PAGE for word in ACTIONS)
    assert all(f"{name}(" in PAGE for name in FUNCTIONS)
    commands = {
        command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands
    }
    assert set(re.findall(r"^cordon rules (\w+)", PAGE, re.MULTILINE)) == commands - {"bench"}


def test_the_files_are_those_of_the_registry(tmp_path):
    registry = Registry(tmp_path)
    text = blocks("toml")[0]
    registry.propose(text, "ada", 1, base="")
    registry.approve(1, "bo", 2)
    names = {p.name for p in tmp_path.iterdir()} - {"lock"}
    assert names == {"sets", "steps", "live.json"}
    assert all(f"`{name}" in PAGE for name in names)
