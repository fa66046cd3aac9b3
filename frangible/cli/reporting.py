"""Errors become messages on stderr and exit codes, in one place."""

import contextlib
import errno
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import typer
from typer import TyperException

from frangible.errors import FrangibleError
from frangible.home import Home

__all__ = ["INTERNAL", "reporting"]

INTERNAL = 70
"""Exit code of an error that nobody foresaw (sysexits.h, EX_SOFTWARE)."""


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Turn what goes wrong inside into a message and `typer.Exit`; a traceback is shown only with FRANGIBLE_DEBUG=1."""
    try:
        yield
    except (typer.Exit, typer.Abort, TyperException):
        raise
    except FrangibleError as error:
        with contextlib.suppress(OSError):  # where nothing can be said, the exit code still says it
            _tell(error)
        raise typer.Exit(error.exit_code) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:  # the reader of a pipe has seen enough
            raise
        with contextlib.suppress(OSError):
            _tell_unexpected(error)
        raise typer.Exit(INTERNAL) from error


def _debugging() -> bool:
    return os.environ.get("FRANGIBLE_DEBUG", "") not in {"", "0"}


def _tell(error: FrangibleError) -> None:
    if _debugging():
        typer.echo("".join(traceback.format_exception(error)), err=True)
    for line in str(error).splitlines() or [type(error).__name__]:
        typer.echo(f"frangible: {line}", err=True)


def _tell_unexpected(error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    if _debugging():
        typer.echo(text, err=True)
    place = _keep(text)
    where = f"the traceback is in {place}" if place else "set FRANGIBLE_DEBUG=1 to see the traceback"
    typer.echo(f"frangible: internal error: {type(error).__name__}: {error}", err=True)
    typer.echo(f"frangible: {where}; please report it. `frangible status` shows whether anything is left in force.", err=True)


def _keep(text: str) -> Path | None:
    """Write the traceback into the home's log folder, else into a temporary file; None when neither can be written."""
    name = f"error-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.log"
    for folder in (Home.find().path / "logs", Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(text)
            return path
    return None
