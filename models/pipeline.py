"""From a history to a published model: the offline builder, training, the artefact."""

from collections.abc import Callable, Mapping
from pathlib import Path

from features import Catalogue
from features.history import History
from models.evaluate import examples_of
from models.manifest import publish_trained
from models.train import Trained, TrainingPlan, train


def groups_of(catalogue: Catalogue) -> Mapping[str, tuple[str, ...]]:
    """Features that go missing together: `label` (a label outage), each entity, `history` (no store)."""
    groups = {
        "label": tuple(f.name for f in catalogue.features if f.uses_labels),
        "history": tuple(f.name for f in catalogue.features if f.entity is not None),
    }
    for entity in catalogue.entities:
        groups[entity] = tuple(f.name for f in catalogue.features if f.entity == entity)
    return {name: features for name, features in groups.items() if features}


def train_history(
    catalogue: Catalogue,
    history: History,
    root: Path,
    *,
    cutoff_ms: int,
    plan: TrainingPlan,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Path, Trained]:
    """Train on what was known of `history` at `cutoff_ms` and publish under `root`.

    Returns the artefact's directory and the fit. Raises `InvalidExamples` (with `TooFewFrauds`); its
    message says what to do.
    """
    examples, _ = examples_of(catalogue, history, progress=progress)
    trained = train(examples, cutoff_ms, plan, progress)
    directory = publish_trained(
        root,
        trained,
        plan,
        catalogue=catalogue.name,
        vector_fingerprint=catalogue.vector_fingerprint,
        state_fingerprint=catalogue.state_fingerprint,
        groups=groups_of(catalogue),
    )
    progress(f"published {directory}")
    return directory, trained
