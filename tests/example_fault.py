"""The example package of docs/example-fault, built and installed into a folder of its own, without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["EXPERIMENT", "installed_variables"]

SOURCE = Path(__file__).parents[1] / "docs" / "example-fault"
EXPERIMENT = SOURCE / "experiments" / "service-stop.yaml"


def installed_variables(folder: Path) -> dict[str, str]:
    """Build and install a copy below `folder`; return environment variables with which Python finds it and its entry point."""
    copy, target = folder / "source", folder / "installed"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))  # setuptools writes where it builds
    words = ("uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable, "--target", str(target))
    done = subprocess.run([sys.executable, "-m", *words, str(copy)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the example cannot be installed: {done.stderr}")
    shutil.rmtree(copy)
    return {**os.environ, "PYTHONPATH": str(target)}
