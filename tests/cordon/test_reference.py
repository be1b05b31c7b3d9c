"""Documentation is under test: pages follow from the values, examples run."""

import re
from pathlib import Path

import pytest

from cordon.evidence import RESULTS
from cordon.numbers import fill
from cordon.reference import catalogue_page, meaning
from features import Catalogue, load

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["payments", "handbook"])
def test_the_reference_page_is_current(name: str) -> None:
    page = (DOCS / "reference" / f"{name}.md").read_text()
    assert page == catalogue_page(load(name)), "run `make reference`"


@pytest.mark.parametrize("name", ["payments", "handbook"])
def test_every_feature_has_words(name: str) -> None:
    for feature in load(name).features:
        assert meaning(feature)


def test_the_catalogue_of_the_guide_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "catalogue.md").read_text(), re.S)
    file = tmp_path / "parcels.py"
    file.write_text(blocks[0])
    found = load(str(file))
    assert isinstance(found, Catalogue)
    assert set(found.entities) == {"sender", "depot", "route"}


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    assert fill(readme, RESULTS) == readme, "run `make reference`"
