"""The one place that knows numba: a typed decorator for compiled kernels.

Compiled code is kept on disk beside the sources, so that a process starts in milliseconds. numba notices a
change of a kernel's own file only, not of the functions it calls in other files; therefore the cache's
directory is named after the content of every file that goes into kernels (`SOURCES`).
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import numba
import numpy as np

SOURCES: Final = ("kernel.py", "formula.py", "evaluate.py", "sweep.py", "state.py", "tier.py")


def _cache_directory() -> Path:
    """`__pycache__/kernels-<content>` of this package, or the same under the temporary directory."""
    here = Path(__file__).parent
    content = hashlib.sha256(numba.__version__.encode())
    for name in SOURCES:
        content.update((here / name).read_bytes())
    name = f"kernels-{content.hexdigest()[:16]}"
    beside = here / "__pycache__"
    if os.access(beside if beside.exists() else here, os.W_OK):
        return beside / name
    return Path(tempfile.gettempdir()) / f"cordon-{os.getuid()}-{name}"


_DIRECTORY: Final = str(_cache_directory())


_SETTINGS: Final[Any] = numba.config

# Casts inside kernels; untyped, because a compiled integer is both a numpy and a plain one.
int64: Final[Any] = np.int64
uint64: Final[Any] = np.uint64
float64: Final[Any] = np.float64


def kernel[F: Callable[..., Any]](function: F) -> F:
    """Compile `function` without the interpreter; arithmetic is IEEE (no contraction, no reordering)."""
    before = _SETTINGS.CACHE_DIR
    _SETTINGS.CACHE_DIR = _DIRECTORY
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    finally:
        _SETTINGS.CACHE_DIR = before
