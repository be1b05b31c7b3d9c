"""The module that answers the online store's calls in C, built by `python -m cordon.stack.compiled`.

Valkey and Redis (7 or later) load it with `--loadmodule <path>`; servers without it run the same in Lua.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Final

import features.compiled
from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

STORE: Final = Source("store", Path(features.compiled.__file__).parent, ("state.c", "module.c"), ("state.h",))


@cache
def store_module() -> Path | None:
    """The module for this machine, built if need be; `None` where it cannot be."""
    try:
        return library(STORE)
    except NotBuilt:
        return None


if __name__ == "__main__":
    sys.exit(report("store module", lambda: library(STORE), "Lua runs the store's functions"))
