"""The code that travels with a job: the workers import it from one zip file."""

import zipfile
from pathlib import Path
from typing import Final

PACKAGES: Final = ("features", "stream")


def pack(root: Path, target: Path) -> Path:
    """Write the modules of the packages below `root` into the zip `target`; returns it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as parcel:
        for package in PACKAGES:
            for module in sorted((root / package).glob("*.py")):
                parcel.write(module, f"{package}/{module.name}")
    return target
