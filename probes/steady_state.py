"""Does a hypothesis hold right now? The probe through which an experiment names its hypotheses."""

from frangible import admission

__all__ = ["steady_state"]


def steady_state(hypothesis: str) -> bool:
    """Say whether `hypothesis` holds: before the method, over the baseline window; after it, whether the effect showed no deviation.

    The answer comes from the run's supervisor, which measures all hypotheses of the run together.
    """
    with admission.interruptible():
        answer = admission.current().link.ask("hypothesis", hypothesis=hypothesis)
    return answer["steady"] is True
