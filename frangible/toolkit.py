"""What Chaos Toolkit itself says of an experiment, without anything of ours: the chaoslib process of a run can be asked too."""

import copy
from collections.abc import Callable
from typing import Any

__all__ = ["complaints", "said"]


def complaints(experiment: object) -> tuple[str, ...]:
    """Return what the toolkit finds wrong; it stops at its first problem. The modules that the experiment names are imported.

    The undecorated function is called: its decorator would empty the cache of an experiment that this process is running.
    """
    from chaoslib.caching import cache_activities
    from chaoslib.experiment import ensure_experiment_is_valid

    data: Any = copy.deepcopy(experiment)

    def check() -> None:
        cache_activities(data)
        ensure_experiment_is_valid.__wrapped__(data)

    return said(check, "it")


def said(check: Callable[[], None], what: str) -> tuple[str, ...]:
    """Return in words what one of the toolkit's checks has against `what`; nothing where it has nothing."""
    from chaoslib.exceptions import ChaosException

    try:
        check()
    except ChaosException as error:
        return (f"Chaos Toolkit refuses {what}: {error}",)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # what its checks do with a part of the wrong shape
        return (f"Chaos Toolkit cannot make sense of {what}: {type(error).__name__}: {error}",)
    return ()
