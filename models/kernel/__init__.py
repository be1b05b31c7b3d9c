"""Compiled prediction and exact contributions of depth-limited tree ensembles, with XGBoost as the reference.

`forest.Forest` is what callers use; `errors` says when to fall back; the tables are described in `forest.h`.
"""
