"""The online store's functions in C, for servers that load modules; cordon/stack/compiled.py builds it."""
