"""The actions that frangible ships; imported as `frangible.actions`."""

if __name__ != "frangible.actions":
    raise ImportError(f"{__name__!r} is frangible.actions imported from the repository root; run `pip install -e .` and import frangible.actions instead")
