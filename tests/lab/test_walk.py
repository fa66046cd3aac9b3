"""The walk of docs/walk-lab.md: every command of the page, in its order, with the exit codes and lines that the page shows."""

import os
from pathlib import Path

import pytest

from frangible.home import Home
from tests.walk import LAB_PAGE, variables, wrong

from .conftest import RunningLab

pytestmark = [pytest.mark.checkout, pytest.mark.timeout(900)]


def test_every_command_of_the_walk_ends_as_the_page_shows(running_lab: RunningLab, tmp_path: Path) -> None:
    """With the lab that is up, in a home whose journal and ledger nobody else uses."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.lab.symlink_to(running_lab.home.lab)
    kept = {name: value for name, value in os.environ.items() if name == "FRANGIBLE_PROMETHEUS"}
    found = wrong(LAB_PAGE, tmp_path, {**variables(home.path), **kept})
    assert not found, "\n".join(found)
