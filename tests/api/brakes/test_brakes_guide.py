"""The page of the brakes holds: its rule loads, its settings exist."""

import re
from pathlib import Path

from api.brakes.cap import Cap, Limits
from api.rules.load import build
from api.rules.vocabulary import vocabulary_of
from cordon.settings import Brakes, variables
from features import load

PAGE = Path("docs/brakes.md").read_text()


def test_the_rule_of_the_page_has_its_own_cap():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (rule,) = build(text, vocabulary_of(load("payments")), lambda _, v: v).rules
    assert Limits().cap_of(rule) == Cap(500, 600_000)


def test_every_setting_is_on_the_page_with_its_default():
    defaults = {f"CORDON_BRAKES__{k.upper()}": v for k, v in Brakes().model_dump().items()}
    rows = dict(re.findall(r"\| `(CORDON_\w+)` \| (\d+)", PAGE))
    assert rows == {name: str(value) for name, value in defaults.items()}
    assert set(rows) <= set(variables())
