"""The model that payments are decided with where a measurement is given no other: the demonstration's."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cordon.demo.prepare import prepare
from cordon.evidence import ROOT
from features import Catalogue

PREPARED: Final = ROOT / ".cordon" / "demo" / "prepared"


def demonstration_model(catalogue: Catalogue, say: Callable[[str], None]) -> Path:
    """Its directory; trained at the first use, which takes minutes. Raises what training raises."""
    return prepare(PREPARED, catalogue, say).model
