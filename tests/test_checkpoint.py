"""Schedules are replayed without physics, and counted against brute force and another library."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoint_rd import CheckpointError, InputError, checkpoint
from adjoint_rd.checkpoint import Advance, Record, Restore, Reverse, Schedule, Store, choose, fewest_advances


def replay(schedule):
    """Carry a schedule out on step numbers; return how many forward steps it took."""
    slots, working, adjoint, recorded, forward = {}, 0, schedule.steps, None, 0
    for action in schedule.actions():
        match action:
            case Store(slot):
                assert 0 <= slot < schedule.slots
                slots[slot] = working
            case Restore(slot):
                working = slots[slot]
            case Advance(first, last):
                assert working == first < last
                working, forward = last, forward + last - first
            case Record(first, last):
                assert working == first
                assert last - first < schedule.buffer_states
                recorded, forward = (first, last), forward + last - first
            case Reverse(last, first):
                assert recorded == (first, last)
                assert adjoint == last
                adjoint = first
    assert adjoint == 0
    return forward


@cache
def by_brute_force(segments, slots):
    if segments <= 1:
        return 0
    if slots == 1:
        return segments * (segments - 1) // 2
    return min(m + by_brute_force(segments - m, slots - 1) + by_brute_force(m, slots) for m in range(1, segments))


@pytest.mark.parametrize("slots", range(1, 9))
def test_binomial_schedules_take_the_fewest_steps(slots):
    for steps in range(2, 50):
        fewest = by_brute_force(steps, slots)
        assert fewest_advances(steps, slots) == fewest
        assert replay(Schedule(steps, 1, slots)) == steps + fewest


@pytest.mark.parametrize(("steps", "slots"), [(10, 2), (10, 3), (20, 4), (57, 5), (30, 1), (100, 7)])
def test_step_counts_equal_those_of_checkpoint_schedules(steps, slots):
    oracle = pytest.importorskip("checkpoint_schedules")
    theirs, taken = oracle.Revolve(steps, slots), 0
    for action in theirs:
        if isinstance(action, oracle.Forward):
            taken += min(action.n1, steps) - action.n0
        if isinstance(action, oracle.EndReverse):
            break
    assert replay(Schedule(steps, 1, slots)) == taken


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 30))
def test_every_schedule_replays_within_its_storage(steps, segment, slots):
    schedule = Schedule(steps, segment, slots)
    assert replay(schedule) <= schedule.forward_steps


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 99, 100, 101, 10_000])
@pytest.mark.parametrize("checkpoints", ["auto", "all", "disk", 1, 5, 60])
def test_what_users_ask_for_replays(steps, checkpoints):
    if isinstance(checkpoints, int) and (checkpoints > max(steps, 1) or (checkpoints < 5 and steps > 1000)):
        return
    schedule = choose(checkpoints, steps, state_bytes=4_000_000, available=1e12)
    assert replay(schedule) >= steps
    if isinstance(checkpoints, int):
        assert schedule.states <= 2 * checkpoints + 2


def test_auto_takes_each_step_about_twice_and_keeps_less_than_two_sqrt_states():
    schedule = choose("auto", 10_000, state_bytes=4_000_000, available=1e12)
    assert replay(schedule) < 1.1 * 20_000
    assert schedule.states <= 1.8 * 100 + 2


def test_auto_keeps_all_up_to_the_limit_and_an_eighth_of_the_memory():
    for limit, available, slots in ((4.1e9, 64e9, 0), (3.9e9, 64e9, 29), (4.1e9, 24e9, 29)):
        assert choose("auto", 1000, 4_000_000, available, limit).slots == slots


def test_auto_keeps_fewer_states_when_memory_is_short():
    schedule = choose("auto", 10_000, state_bytes=4_000_000, available=200e6)
    assert schedule.states * 4e6 <= 0.8 * 200e6
    assert replay(schedule) < 60_000


def test_a_schedule_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(CheckpointError, match=r"needs 40.00 GB .* checkpoints=(\d+) would fit") as refused:
        choose("all", 10_000, state_bytes=4_000_000, available=1e9)
    fits = int(str(refused.value).split("checkpoints=")[2].split()[0])
    assert choose(fits, 10_000, state_bytes=4_000_000, available=1e9).slots == fits


@pytest.mark.parametrize(
    ("checkpoints", "error"),
    [("most", InputError), (0, InputError), (True, InputError), (2.5, InputError), (101, CheckpointError)],
)
def test_what_is_no_schedule_is_refused(checkpoints, error):
    with pytest.raises(error, match="checkpoints"):
        choose(checkpoints, 100, state_bytes=8)


def test_available_memory_is_a_positive_number_of_bytes():
    assert checkpoint.available_bytes() > 1e6
