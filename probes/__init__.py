"""The probes that frangible ships; imported as `frangible.probes`."""

if __name__ != "frangible.probes":
    raise ImportError(f"{__name__!r} is frangible.probes imported from the repository root; run `pip install -e .` and import frangible.probes instead")
