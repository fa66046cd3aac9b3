"""Tells the generator what a ConfigMap says, at once: a mounted ConfigMap follows changes about a minute later. Runs beside the generator in its pod.

usage: python -m frangible.lab.services.rate CONFIGMAP KEY FILE
"""

import sys
from pathlib import Path

from frangible.lab.services.following import follow, own_namespace, replace


def main(name: str, key: str, file: Path) -> None:
    """Follow for ever; what was written last stays while there is nothing to read."""
    for objects in follow(f"/api/v1/namespaces/{own_namespace()}/configmaps", fieldSelector=f"metadata.name={name}"):
        for found in objects.values():
            if key in found.get("data", {}):
                replace(file, found["data"][key])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
