"""`cordon reference`: write the pages and tables that follow from code and results."""

from pathlib import Path

from cordon.evidence import RESULTS, ROOT
from cordon.numbers import fill
from cordon.reference import catalogue_page
from cordon.scaling import fill as fill_scaling
from features import load

CATALOGUES = ("payments", "handbook")


def command(directory: Path = ROOT / "docs" / "reference") -> None:
    """Write `docs/reference/`, the README's numbers and the tables of `docs/scaling.md`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUES:
        (directory / f"{name}.md").write_text(catalogue_page(load(name)))
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(), RESULTS))
    scaling = ROOT / "docs" / "scaling.md"
    scaling.write_text(fill_scaling(scaling.read_text(), RESULTS))
