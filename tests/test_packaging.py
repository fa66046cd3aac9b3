"""The checkout: top-level folders that become one import package, and what the wheel takes of them."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

pytestmark = pytest.mark.checkout


def packages_on_disk() -> dict[str, Path]:
    """Every folder with an `__init__.py`, by the name that it is imported by."""
    return {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts]): init.parent
        for package, folder in SETUPTOOLS["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    }


def test_every_package_folder_is_listed() -> None:
    assert set(packages_on_disk()) == set(SETUPTOOLS["packages"])


def test_every_file_ships_as_a_module_of_a_package_or_as_package_data() -> None:
    packages = packages_on_disk()
    shipped = {module for folder in packages.values() for module in folder.glob("*.py")}
    for package, patterns in SETUPTOOLS["package-data"].items():
        shipped |= {path for pattern in patterns for path in packages[package].glob(pattern)}
    present = {path for folder in SETUPTOOLS["package-dir"].values() for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {str(path.relative_to(ROOT)) for path in present - shipped} == set()


@pytest.mark.parametrize("folder", ["actions", "probes", "hypotheses", "experiments"])
def test_folders_refuse_to_be_imported_by_their_generic_name(folder: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"import frangible.{folder} instead" in run.stderr


def test_constraints_are_names_and_versions_and_no_addresses() -> None:
    lines = (ROOT / "ci" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert [line for line in pins if "==" not in line or set(line) & set("/:@;# ")] == []
