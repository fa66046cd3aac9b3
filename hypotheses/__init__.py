"""The hypotheses that frangible ships; imported as `frangible.hypotheses`."""

if __name__ != "frangible.hypotheses":
    raise ImportError(f"{__name__!r} is frangible.hypotheses imported from the repository root; run `pip install -e .` and import frangible.hypotheses instead")
