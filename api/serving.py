"""From an artefact's directory to the model that the engine asks."""

from pathlib import Path

import numpy as np

from api.model import ModelRefused, ServingModel
from features.catalogue import Catalogue, vector_fingerprint
from models.artefact import ArtefactError, load
from models.reasons import load_reasons


def open_model(directory: Path, catalogue: Catalogue) -> ServingModel:
    """Load, verify and bind a model to the catalogue's vector. Raises `ModelRefused`."""
    try:
        model = load(directory)
    except ArtefactError as error:
        raise ModelRefused(str(error)) from error
    places = {name: place for place, name in enumerate(catalogue.names)}
    unknown = [name for name in model.features if name not in places]
    if unknown:
        raise ModelRefused(f"{directory.name} wants features that {catalogue.name} has not: {unknown[:5]}")
    bound = tuple(catalogue.features[places[name]] for name in model.features)
    own = vector_fingerprint(catalogue.schema, bound)
    trained = model.manifest["vector_fingerprint"]
    if trained not in (own, catalogue.vector_fingerprint):
        raise ModelRefused(f"{directory.name} was trained on vector {trained}, this one is {own}")
    history = {feature.name for feature in bound if feature.entity is not None}
    groups = [set(features) for features in model.missing_allowed.values()]
    return ServingModel(
        version=model.version,
        features=model.features,
        columns=np.array([places[name] for name in model.features], np.intp),
        scorer=model.scorer,
        calibrator=model.calibrator,
        policy=model.policy,
        explainer=load_reasons().group(bound),
        allows_missing=any(history <= group for group in groups),
        scorecard=model.scorecard,
    )
