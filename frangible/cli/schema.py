"""`frangible schema`: the JSON Schema of a file format."""

from typing import Annotated

import typer

from frangible.cli.group import new_app
from frangible.cli.output import print_json
from frangible.cli.validate import Kind

__all__ = ["app"]

app = new_app()


@app.command()
def schema(kind: Annotated[Kind, typer.Argument(metavar="KIND", help="configuration, inventory, hypothesis, experiment, policy or gameday.")]) -> None:
    """Print the JSON Schema of a file format, for editors.

    \b
    Example:
      frangible schema inventory > inventory.schema.json
    """
    from frangible import schemas

    print_json(schemas.schema(kind.value))
