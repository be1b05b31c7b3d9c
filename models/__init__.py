"""Offline training, the artefact and its scorer, calibration, exact contributions and reasons."""
