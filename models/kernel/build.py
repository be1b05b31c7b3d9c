"""Compiles C sources: `python -m models.kernel.build`, at installation or at the first use.

The shared object's name holds a hash of the sources and flags and one of the compiler. It is put in place by
an atomic rename, so that processes may build at the same time. It lies beside the sources where that folder
can be written, else in the user's cache. One that was built before serves where there is no compiler now.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.kernel.errors import NotBuilt

FLAGS: Final = (
    "-std=c99",
    "-O3",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",  # a fused multiply-add would round otherwise than XGBoost
    "-Wall",
    *(("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()),
)
COMPILE_SECONDS_MAX: Final = 180


@dataclass(frozen=True, slots=True)
class Source:
    """What becomes one shared object: C files and their headers in a folder, and flags beside the usual."""

    name: str
    folder: Path
    files: tuple[str, ...]
    headers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """What the shared object's name begins with on this machine."""
        texts = (self.folder.joinpath(name).read_bytes() for name in self.files + self.headers)
        digest = _digest(*texts, repr(FLAGS + self.flags).encode())
        return f"{self.name}-{sys.platform}-{platform.machine()}-{digest}"

    @property
    def places(self) -> tuple[Path, Path]:
        """Where the shared object may lie."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.folder / "build", Path(cache) / "cordon"


FOREST: Final = Source(
    "forest",
    Path(__file__).parent,
    ("binding.c", "score.c", "explain.c", "tabulate.c"),
    ("abi.h", "forest.h"),
)


def library(source: Source = FOREST) -> Path:
    """The shared object for this machine, built if need be (seconds). Raises `NotBuilt`."""
    prefix, places = source.prefix, source.places
    compiler = find_compiler()
    if compiler is None:
        built = [path for folder in places for path in sorted(folder.glob(f"{prefix}-*.so"))]
        if not built:
            raise NotBuilt("no C compiler (cc, gcc, clang or $CC): install one for compiled scoring")
        return built[0]
    name = f"{prefix}-{_digest(*compiler[1:], compiler[0])}.so"
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    return _compile(source, [os.fsdecode(part) for part in compiler[1:]], name)


def find_compiler() -> tuple[bytes, ...] | None:
    """Its version, then its command line; `None` where there is none that runs."""
    chosen = os.environ.get("CC")
    for command in [shlex.split(chosen)] if chosen else [["cc"], ["gcc"], ["clang"]]:
        if not command or shutil.which(command[0]) is None:
            continue
        try:
            version = subprocess.run(
                [*command, "--version"], capture_output=True, check=True, timeout=20
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        return (version, *map(os.fsencode, command))
    return None


def _compile(source: Source, command: list[str], name: str) -> Path:
    reasons = []
    for folder in source.places:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=".draft-", suffix=".so", dir=folder)
        except OSError as error:
            reasons.append(str(error))
            continue
        os.close(handle)
        try:
            sources = [str(source.folder / file) for file in source.files]
            done = subprocess.run(
                [*command, *FLAGS, *source.flags, "-o", draft, *sources, "-lm"],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=COMPILE_SECONDS_MAX,
            )
            if done.returncode != 0:
                first = next((line for line in done.stderr.splitlines() if line.strip()), "no message")
                raise NotBuilt(f"{' '.join(command)} failed: {first}")
            os.chmod(draft, 0o755)
            os.replace(draft, folder / name)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotBuilt(f"{' '.join(command)} failed: {error}") from error
        finally:
            Path(draft).unlink(missing_ok=True)
        return folder / name
    raise NotBuilt(f"no folder for the shared object: {'; '.join(reasons)}")


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:12]


def report(name: str, build: Callable[[], Path], instead: str) -> int:
    """Build, and say in one line what happened; not an error where it cannot be. The exit status."""
    try:
        sys.stdout.write(f"compiled {name}: {build()}\n")
    except NotBuilt as error:
        sys.stdout.write(f"no compiled {name}, {instead} instead: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(report("scoring", library, "XGBoost scores"))
