"""Rule sets by version, kept for ever: the text as it was published, and the digests of its parts.

    <directory>/<version>.toml    the text
    <directory>/<version>.json    its manifest, whose digest is in the version

A text that was changed behind its version is not served as if it were the set: the rules and lists that
differ are named.
"""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from api.rules.load import RuleSetError, manifest_of
from api.rules.manifest import Changes, Manifest, changes


class SetMissing(LookupError):
    """No set of this version was ever put here."""


class SetChanged(Exception):
    """The stored set is not what its version says. `changes`: what differs, as far as the manifest tells."""

    def __init__(self, version: str, found: Changes, detail: str) -> None:
        super().__init__(f"{version}: {detail}")
        self.version = version
        self.changes = found


class Shelf:
    """A directory of sets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def files(self, version: str) -> tuple[Path, Path]:
        """Where a set's text and manifest are."""
        return self.directory / f"{version}.toml", self.directory / f"{version}.json"

    def put(self, text: str) -> Manifest:
        """Keep a set; the same content again changes nothing. Raises `RuleSetError`, `OSError`."""
        manifest = manifest_of(text)
        self.directory.mkdir(parents=True, exist_ok=True)
        for place, content in zip(self.files(manifest.version), (text, _json(manifest)), strict=True):
            if not place.exists():
                with suppress(FileExistsError):
                    write_once(place, content)
        return manifest

    def manifest(self, version: str) -> Manifest:
        """Digests of a set's parts. Raises `SetMissing`, `SetChanged`."""
        try:
            manifest = Manifest.from_json(json.loads(self.files(version)[1].read_text()))
        except FileNotFoundError:
            raise SetMissing(f"no rule set {version} in {self.directory}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise SetChanged(version, Changes((), ()), "its manifest is not readable") from error
        if manifest.version != version:
            raise SetChanged(version, Changes((), ()), "its manifest is not the one that was published")
        return manifest

    def text(self, version: str) -> str:
        """The set's text, as it was published. Raises `SetMissing`, `SetChanged`."""
        manifest = self.manifest(version)
        try:
            text = self.files(version)[0].read_text()
            found = changes(manifest, manifest_of(text))
        except FileNotFoundError:
            raise SetMissing(f"the text of {version} is not in {self.directory}") from None
        except (RuleSetError, UnicodeDecodeError) as error:
            raise SetChanged(version, Changes((), ()), f"its text is damaged: {error}") from error
        if found:
            named = [f"rule {name}" for name in found.rules] + [f"list {name}" for name in found.lists]
            detail = ", ".join(named) or "the order of the rules"
            raise SetChanged(version, found, f"{detail} changed after it was published")
        return text


def write_once(place: Path, content: str) -> None:
    """A whole, durable file or none; whoever comes first wins. Raises `FileExistsError`, `OSError`."""
    handle, draft = tempfile.mkstemp(prefix=".draft-", dir=place.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.link(draft, place)
    finally:
        os.unlink(draft)
    sync(place.parent)


def sync(directory: Path) -> None:
    """Make names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(manifest: Manifest) -> str:
    return json.dumps(manifest.to_json(), indent=1) + "\n"
