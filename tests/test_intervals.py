"""Wilson's interval, against worked numbers and the equation that it solves."""

import math

import pytest

from engine.intervals import wilson


def test_eight_in_ten() -> None:
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)  # Agresti & Coull's worked numbers


@pytest.mark.parametrize(("hits", "trials"), [(1, 3), (40, 100), (9_000, 10_000)])
def test_its_ends_are_shares_of_which_the_one_seen_is_just_not_surprising(hits: int, trials: int) -> None:
    for end in wilson(hits, trials):
        assert end is not None
        assert abs(hits / trials - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / trials), rel=1e-6)


def test_it_has_a_width_and_stays_a_share_where_nothing_or_everything_was_hit() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)


def test_of_nothing_there_is_none() -> None:
    assert wilson(0, 0) == (None, None)


def test_a_share_lies_in_its_own_interval() -> None:
    for trials in range(1, 200):
        for hits in (0, 1, trials // 2, trials - 1, trials):
            low, high = wilson(hits, trials)
            assert 0 <= low <= hits / trials <= high <= 1
