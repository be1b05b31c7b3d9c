"""What decided in the past, by version: models beside the one that serves, rule sets from the shelf."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from api.model import ModelRefused, ServingModel
from api.rules.load import Pseudonym, build
from api.rules.rule import RuleSet
from api.rules.shelf import SetMissing, Shelf
from api.rules.vocabulary import vocabulary_of
from features.catalogue import Catalogue

KEPT_MAX: Final = 8
_Stamp = tuple[tuple[str, int, int, int], ...]


class Artefacts:
    """Opens and verifies models and sets at their first use, and again where their files changed; keeps the
    latest few open."""

    def __init__(
        self, catalogue: Catalogue, pseudonym: Pseudonym, models: Path | None, shelf: Shelf | None
    ) -> None:
        self._catalogue = catalogue
        self._vocabulary = vocabulary_of(catalogue)
        self._pseudonym = pseudonym
        self._directory = models
        self._models: dict[str, tuple[_Stamp, ServingModel]] = {}
        self._sets: dict[str, tuple[_Stamp, RuleSet]] = {}
        self.shelf = shelf

    def model(self, version: str) -> ServingModel:
        """The model of that version, verified. Raises `ModelRefused`."""
        if self._directory is None or "/" in version:
            raise ModelRefused(f"the model {version} is not here")
        place = self._directory / version
        stamp = _stamp(place.iterdir() if place.is_dir() else ())
        known = self._models.pop(version, None)
        if known is None or known[0] != stamp:
            from api.serving import open_model

            known = stamp, open_model(place, self._catalogue)
        _keep(self._models, version, known)
        return known[1]

    def rules(self, version: str) -> RuleSet:
        """The set of that version, verified. Raises `SetMissing`, `SetChanged`, `RuleSetError`."""
        if self.shelf is None or "/" in version:
            raise SetMissing(f"the rule set {version} is not here")
        stamp = _stamp(self.shelf.files(version))
        known = self._sets.pop(version, None)
        if known is None or known[0] != stamp:
            known = stamp, build(self.shelf.text(version), self._vocabulary, self._pseudonym, origin=version)
        _keep(self._sets, version, known)
        return known[1]


def _stamp(files: Iterable[Path]) -> _Stamp:
    """Changes when one of the files is replaced or written to."""
    found = [(f.name, f.stat()) for f in files if f.exists()]
    return tuple(sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found))


def _keep[T](kept: dict[str, T], version: str, value: T) -> None:
    kept[version] = value
    while len(kept) > KEPT_MAX:
        kept.pop(next(iter(kept)))
