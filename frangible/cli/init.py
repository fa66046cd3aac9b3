"""`frangible init`: a starter folder for somebody's own estate."""

from pathlib import Path
from typing import Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.opening import AsJson
from frangible.cli.output import print_json
from frangible.errors import UsageError

__all__ = ["app"]

app = new_app()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="Where to write; the working directory when left out.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a starter folder for your own environments: configuration, inventory, a hypothesis, an experiment, each with comments.

    Nothing that exists is overwritten: when one of the files is there already, nothing is written at all.
    Commands find the folder from the working directory upwards, by --config, or by FRANGIBLE_CONFIG.

    \b
    Example:
      frangible init my-estate
      cd my-estate && frangible validate .
    """
    from frangible.cli.starter import FILES

    files = {folder / name: text for name, text in FILES.items()}
    there = [str(path) for path in files if path.exists() or path.is_symlink()]
    if there:
        raise UsageError(f"{', '.join(there)}: there already, and nothing is overwritten; name another folder: `frangible init NEW-FOLDER`")
    _write(files)
    if as_json:
        print_json({"folder": str(folder.absolute()), "files": [str(path) for path in files]})
        return
    for path in files:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: read {folder / 'README.md'}, edit {folder / 'inventory' / 'environments.yaml'}, then `frangible validate {folder}`")


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # x: somebody else may be writing here
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}; name a folder that you may write to") from error
