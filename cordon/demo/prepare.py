"""What a demonstration needs once: two worlds, and a model that has seen only the first."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from features import Catalogue
from features.history import load_history
from features.offline import build
from features.tier import DAY
from models.artefact import ArtefactError
from models.artefact import load as load_model
from models.booster import fit_booster
from models.metrics import average_precision
from models.pipeline import train_history
from models.train import PARAMETERS, TrainingPlan
from stream.world.spec import WorldSpec
from stream.world.vocabulary import ATTACKS
from stream.world.world import generate, write_history

# The stream is denser in attacks than life: each kind takes place several times, so that each is seen.
TRAIN_SEED, STREAM_SEED = 101, 202
TRAIN = WorldSpec(customers=2_000, days=75, fraud_share=0.005)
STREAM = WorldSpec(customers=1_400, days=44, captures=False, campaigns=dict.fromkeys(ATTACKS, 4))
BACKFILL_DAYS = 33


@dataclass(frozen=True, slots=True)
class Prepared:
    """`stream`: the history to replay; from `live_from_ms` on over HTTP, before it as a backfill."""

    stream: Path
    model: Path
    live_from_ms: int
    stateless_average_precision: float


def prepare(directory: Path, catalogue: Catalogue, say: Callable[[str], None]) -> Prepared:
    """Generate, train, remember. The second call finds everything made; another catalogue or specification
    makes it again. Raises what training raises."""
    directory.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((catalogue.vector_fingerprint, TRAIN, STREAM, PARAMETERS)).encode()).hexdigest()
    note = directory / "prepared.json"
    stream = directory / "stream.parquet"
    live_from_ms = STREAM.start_ms + BACKFILL_DAYS * DAY
    known = json.loads(note.read_text()) if note.is_file() else {}
    made = known.get("key") == key and stream.is_file()
    if not made or not _loads(directory / known["model"], catalogue):
        known = _make(directory, catalogue, stream, live_from_ms, say) | {"key": key}
        note.write_text(json.dumps(known))
    return Prepared(stream, directory / known["model"], live_from_ms, known["stateless_average_precision"])


def _loads(model: Path, catalogue: Catalogue) -> bool:
    try:
        load_model(model, features=catalogue.names, fingerprint=catalogue.vector_fingerprint)
    except ArtefactError:
        return False
    return True


def _make(
    directory: Path, catalogue: Catalogue, stream: Path, live_from_ms: int, say: Callable[[str], None]
) -> dict[str, str | float]:
    say(f"generating two payments worlds of {len(ATTACKS)} kinds of attack")
    train = directory / "train.parquet"
    write_history(generate(TRAIN, TRAIN_SEED), train)
    write_history(generate(STREAM, STREAM_SEED), stream)
    past = load_history(train, catalogue.schema)
    say(f"training on {len(past)} transactions of the first world")
    plan = TrainingPlan(catalogue.schema.label_delay_ms, seed=TRAIN_SEED)
    cutoff_ms = TRAIN.end_ms + catalogue.schema.label_delay_ms
    model, _ = train_history(
        catalogue, past, directory / "models", cutoff_ms=cutoff_ms, plan=plan, progress=say
    )
    return {
        "model": str(model.relative_to(directory)),
        "stateless_average_precision": _stateless(catalogue, train, stream, live_from_ms),
    }


def _stateless(catalogue: Catalogue, train: Path, stream: Path, live_from_ms: int) -> float:
    """Average precision, on the live part, of a model that sees the event's own fields only."""
    own = tuple(f for f in catalogue.features if f.entity is None)

    def matrix(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
        history = load_history(path, catalogue.schema)
        return build(catalogue, history, features=own).values, history.label, history.time_ms

    known, fraud, _ = matrix(train)
    booster = xgb.Booster()
    booster.load_model(bytearray(fit_booster(known, fraud, PARAMETERS, seed=TRAIN_SEED)))
    seen, truth, times = matrix(stream)
    live = times >= live_from_ms
    return round(float(average_precision(truth[live], booster.inplace_predict(seen[live]))), 4)
