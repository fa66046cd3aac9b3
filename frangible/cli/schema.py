"""`frangible schema`: the JSON Schema of a file format."""

from enum import StrEnum
from typing import Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.output import print_json

__all__ = ["app"]

app = new_app()


class Kind(StrEnum):
    """The file formats that have a schema."""

    INVENTORY = "inventory"
    HYPOTHESIS = "hypothesis"
    EXPERIMENT = "experiment"


@app.command()
def schema(kind: Annotated[Kind, typer.Argument(metavar="KIND", help="inventory, hypothesis or experiment.")]) -> None:
    """Print the JSON Schema of a file format, for editors.

    \b
    Example:
      frangible schema inventory > inventory.schema.json
    """
    from frangible import validation

    print_json(validation.schema(kind.value))
