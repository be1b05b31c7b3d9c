"""A trained model on disk: a directory whose name comes from its content, verified when it is loaded.

    <root>/<version>/manifest.json        lineage, settings, metrics, golden rows, file hashes
                     member-<i>-<name>.ubj
                     calibrator.json  policy.json  scorecard.json

No pickle; the same training gives the same bytes and so the same version. Publishing is atomic.

Errors, and what the caller does about them:

* ArtefactError
  * ArtefactMissing       train one, or fix the path
  * ArtefactDamaged       restore or train again: a file is not what the manifest says
  * ArtefactIncompatible  use the model with the catalogue it was trained for, or train for this one
  * ArtefactDisagrees     do not serve: this machine does not reproduce the golden rows
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibrator
from models.ensemble import Ensemble, Member
from models.policy import Policy
from models.scorecard import Scorecard
from models.scorer import Scorer, open_scorer

FORMAT: Final = 1
GOLDEN_TOLERANCE: Final = 1e-5


class ArtefactError(Exception):
    """A model cannot be loaded."""


class ArtefactMissing(ArtefactError):
    """There is no model here: train one, or fix the path."""


class ArtefactDamaged(ArtefactError):
    """A file differs from what the manifest says: restore it, or train again."""


class ArtefactIncompatible(ArtefactError):
    """Another catalogue, order of features or format: train for this one."""


class ArtefactDisagrees(ArtefactError):
    """The golden rows have other margins on this machine: do not serve it here."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded, verified and warm model: everything that a decision needs of it.

    `fallback`: why it does not run where it was asked to, `None` if it does. `missing_allowed`: groups of
    features that may all be absent while the model still scores (by name of the group).
    """

    version: str
    features: tuple[str, ...]
    ensemble: Ensemble
    calibrator: Calibrator
    policy: Policy
    scorecard: Scorecard
    scorer: Scorer
    manifest: Mapping[str, Any]
    fallback: str | None = None

    @property
    def missing_allowed(self) -> Mapping[str, tuple[str, ...]]:
        groups: dict[str, list[str]] = self.manifest["missing_allowed"]
        return {name: tuple(features) for name, features in groups.items()}

    def probability(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probability of fraud, float64."""
        return self.calibrator.probability(margins)


def publish(root: Path, model: Ensemble, parts: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
    """Write an artefact under `root` and return its directory.

    `parts`: JSON objects by file name without suffix (`calibrator`, `policy`, `scorecard`). The manifest
    gets format, members and file hashes. Publishing the same content again changes nothing.
    """
    files = {f"{name}.json": _json(value) for name, value in parts.items()}
    members = []
    for number, member in enumerate(model.members):
        file = f"member-{number}-{member.name}.ubj"
        files[file] = member.model
        members.append(
            {"name": member.name, "file": file, "weight": member.weight, "uses_labels": member.uses_labels}
        )
    complete = _json(
        {
            "format": FORMAT,
            **manifest,
            "features": list(model.features),
            "members": members,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        }
    )
    version = f"{manifest['catalogue']}-{hashlib.sha256(complete).hexdigest()[:12]}"
    target = root / version
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
    try:
        for name, content in {**files, "manifest.json": complete}.items():
            _write(draft / name, content)
        draft.chmod(0o755)
        os.rename(draft, target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.exists():  # else another process published the same content first
            raise
    _sync(root)
    return target


def load(
    directory: Path,
    *,
    features: tuple[str, ...] | None = None,
    fingerprint: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Model:
    """Load, verify (files, fingerprint of the vector, golden rows) and warm up. Raises `ArtefactError`.

    `features` and `fingerprint` are what the caller will feed it with; `None` is not checked.
    """
    manifest, content = _read(directory)
    bound = tuple(manifest["features"])
    if fingerprint is not None and manifest["vector_fingerprint"] != fingerprint:
        raise ArtefactIncompatible(
            f"{directory.name} was trained on vector {manifest['vector_fingerprint']}, not {fingerprint}: "
            "the catalogue changed, train again"
        )
    if features is not None and bound != features:
        raise ArtefactIncompatible(
            f"{directory.name} wants {len(bound)} features in its own order; " + _difference(bound, features)
        )
    try:
        members = tuple(
            Member(m["name"], content[m["file"]], m["weight"], m["uses_labels"]) for m in manifest["members"]
        )
        ensemble = Ensemble(bound, members)
        calibrator = Calibrator.from_json(json.loads(content["calibrator.json"]))
        policy = Policy.from_json(json.loads(content["policy.json"]))
        scorecard = Scorecard.from_json(json.loads(content["scorecard.json"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactDamaged(f"{directory}: a part is not readable: {error}") from error
    opened = open_scorer(ensemble, device)
    model = Model(
        directory.name,
        bound,
        ensemble,
        calibrator,
        policy,
        scorecard,
        opened.scorer,
        manifest,
        opened.fallback,
    )
    _verify_golden(model)
    return model


def golden_rows(ensemble: Ensemble, scorer: Scorer, matrix: NDArray[np.float32]) -> dict[str, Any]:
    """The manifest's golden rows: vectors (`None` = absent) with the margins that they must get."""
    rows = np.vstack([matrix, np.full((1, len(ensemble.features)), np.nan, dtype=np.float32)])
    margins = scorer.score(rows)
    vectors = [[None if np.isnan(v) else float(v) for v in row] for row in rows]
    return {"rows": vectors, "margins": margins.tolist()}


def point(root: Path, alias: str, version: str) -> None:
    """Let `alias` (such as `champion`) name `version`, atomically. Raises `ArtefactMissing`."""
    if not (root / version / "manifest.json").is_file():
        raise ArtefactMissing(f"no model {version} under {root}")
    handle, draft = tempfile.mkstemp(prefix=f".{alias}-", dir=root)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(version + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, root / alias)
    _sync(root)


def resolve(root: Path, alias: str) -> Path:
    """Directory of the version that `alias` names. Raises `ArtefactMissing`."""
    try:
        return root / (root / alias).read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise ArtefactMissing(f"no {alias} under {root}: run `cordon train`") from error


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        raw = (directory / "manifest.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtefactMissing(f"no model at {directory}: run `cordon train`") from error
    try:
        manifest = json.loads(raw)
        expected: dict[str, str] = manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactDamaged(f"{directory}: the manifest is not readable") from error
    if manifest.get("format") != FORMAT:
        raise ArtefactIncompatible(f"{directory}: format {manifest.get('format')}, this code reads {FORMAT}")
    if not directory.name.endswith(hashlib.sha256(raw).hexdigest()[:12]):
        raise ArtefactDamaged(f"{directory}: the manifest is not the one that was published")
    content = {}
    for name, digest in expected.items():
        try:
            content[name] = (directory / name).read_bytes()
        except FileNotFoundError as error:
            raise ArtefactDamaged(f"{directory}: {name} is missing") from error
        if hashlib.sha256(content[name]).hexdigest() != digest:
            raise ArtefactDamaged(f"{directory}: {name} is not the file that was published")
    return manifest, content


def _verify_golden(model: Model) -> None:
    golden = model.manifest["golden"]
    rows = np.array(
        [[np.nan if v is None else v for v in row] for row in golden["rows"]], dtype=np.float32
    ).reshape(-1, len(model.features))
    expected = np.array(golden["margins"])
    # scored as one batch and one by one: verifies both ways of serving and warms them up
    for margins in (model.scorer.score(rows), np.concatenate([model.scorer.score(r[None]) for r in rows])):
        worst = float(np.abs(margins - expected).max())
        if not worst <= GOLDEN_TOLERANCE:
            raise ArtefactDisagrees(f"{model.version}: golden margins differ by {worst:.3g} here")
    model.scorer.contributions(rows[:1])
    model.probability(expected)


def _difference(bound: tuple[str, ...], offered: tuple[str, ...]) -> str:
    missing = [name for name in bound if name not in offered]
    surplus = [name for name in offered if name not in bound]
    if missing or surplus:
        return f"missing {missing[:5]}, unknown {surplus[:5]}"
    return "the same features came in another order"


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
