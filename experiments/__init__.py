"""The experiments that frangible ships; imported as `frangible.experiments`."""

if __name__ != "frangible.experiments":
    raise ImportError(
        f"{__name__!r} is frangible.experiments imported from the repository root; run `pip install -e .` and import frangible.experiments instead"
    )
