"""Brakes: what stops a bad rule, or a whole service gone wrong, before it has declined too many customers."""
