"""`cordon reference`: write the generated pages of `docs/reference/`."""

from pathlib import Path

from cordon.reference import catalogue_page
from features import load

CATALOGUES = ("payments", "handbook")


def command(directory: Path = Path("docs/reference")) -> None:
    """Write the pages that follow from code."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUES:
        (directory / f"{name}.md").write_text(catalogue_page(load(name)))
