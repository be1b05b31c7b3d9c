"""Composition root: command line, settings and the local stack."""
