"""Laws of scheduling: no two runs with a common key at once, in the order given, and all of them."""

from hypothesis import given
from hypothesis import strategies as st

from frangible.fleet import startable, worst

KEYS = st.lists(st.frozensets(st.sampled_from("abcdef"), max_size=3), max_size=12)


@given(waiting=KEYS, at_most=st.integers(1, 4), data=st.data())
def test_every_run_has_its_turn_alone_on_its_keys_and_after_those_before_it(waiting, at_most, data):
    left = list(range(len(waiting)))
    running: list[int] = []
    ended: list[int] = []
    while left or running:
        in_use = [key for number in running for key in waiting[number]]
        now = [left[index] for index in startable([waiting[number] for number in left], in_use, at_most - len(running))]
        assert now == sorted(now)
        for number in now:
            left.remove(number)
            assert all(waiting[number].isdisjoint(waiting[other]) for other in running)
            assert not any(waiting[number] & waiting[earlier] for earlier in left if earlier < number)
            running.append(number)
        assert 0 < len(running) <= at_most
        ended.append(running.pop(data.draw(st.integers(0, len(running) - 1))))
    assert sorted(ended) == list(range(len(waiting)))


@given(waiting=KEYS, in_use=st.frozensets(st.sampled_from("abcdef")), room=st.integers(0, 4))
def test_no_place_is_left_empty_that_could_be_taken(waiting, in_use, room):
    chosen = startable(waiting, in_use, room)
    if len(chosen) < room:
        for number in set(range(len(waiting))) - set(chosen):
            before = set(in_use).union(*(waiting[earlier] for earlier in range(number)))
            assert waiting[number] & before


@given(codes=st.lists(st.sampled_from([0, 1, 3, 4, 70]), min_size=1))
def test_the_worst_exit_code_is_one_of_them_and_does_not_depend_on_their_order(codes):
    assert worst(codes) in codes
    assert worst(codes) == worst(reversed(codes))
    assert (worst(codes) == 0) == (set(codes) == {0})
