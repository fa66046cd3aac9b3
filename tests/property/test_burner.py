"""The law by which CPUs are held: it comes to what is requested, whatever else runs, and winds nothing up."""

from hypothesis import given
from hypothesis import strategies as st

from frangible.burner import Law

SHARES = st.floats(min_value=0.0, max_value=1.0)


def after(law: Law, wanted: float, others: float, steps: int) -> tuple[Law, float]:
    """Run the law on a CPU of which others take a share; what both want at once is used once."""
    used = 0.0
    for _ in range(steps):
        used = law.duty + (1 - law.duty) * others
        law = law.corrected(wanted, used)
    return law, used


@given(wanted=SHARES, measured=SHARES, duty=SHARES, error=st.floats(min_value=-1, max_value=1))
def test_the_duty_is_always_a_share(wanted: float, measured: float, duty: float, error: float) -> None:
    assert 0 <= Law(duty, error).corrected(wanted, measured).duty <= 1


@given(others=st.floats(min_value=0.0, max_value=0.6), part=st.floats(min_value=0.1, max_value=1.0))
def test_it_comes_within_a_percentage_point_in_twenty_seconds(others: float, part: float) -> None:
    wanted = others + part * (1 - others)
    _, used = after(Law(wanted), wanted, others, steps=40)
    assert abs(used - wanted) < 0.01


@given(wanted=st.floats(min_value=0.3, max_value=0.9), minutes=st.integers(min_value=1, max_value=10))
def test_however_long_others_held_the_cpu_it_is_back_as_soon(wanted: float, minutes: int) -> None:
    law, _ = after(Law(wanted), wanted, 1.0, steps=minutes * 120)
    assert law.duty == 0
    _, used = after(law, wanted, 0.0, steps=20)
    assert abs(used - wanted) < 0.01
