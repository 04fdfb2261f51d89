"""Two models on the same items: laws of the difference and its interval, and figures worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omr_runtime.verify.paired import paired

SCORES = st.dictionaries(
    st.integers(0, 30).map(str), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=3)
)


@given(SCORES, SCORES)
def test_the_interval_holds_the_difference_and_turns_with_it(
    a: dict[str, list[float]], b: dict[str, list[float]]
) -> None:
    found, turned = paired(a, b), paired(b, a)
    if found is None or turned is None:
        assert not a.keys() & b.keys()
        return
    assert -1 <= found.lo <= found.hi <= 1
    assert (found.wins, found.losses) == (turned.losses, turned.wins)
    assert (found.lo, found.hi) == pytest.approx((-turned.hi, -turned.lo))
    assert found.difference == pytest.approx(-turned.difference)


def test_one_answer_each_by_hand() -> None:
    """Ten items, B right on three where A is wrong, A on one: (4 - 2) / 12 ± 1.96 sqrt((6/12 - 1/36) / 12)."""
    a = {str(n): [float(n in (0, 5, 6))] for n in range(10)}
    b = {str(n): [float(n in (1, 2, 3, 5, 6))] for n in range(10)}
    found = paired(a, b)
    assert found is not None
    assert (found.num_items, found.wins, found.losses) == (10, 3, 1)
    assert found.difference == pytest.approx(0.2)
    assert found.lo == pytest.approx(2 / 12 - 1.959964 * (17 / 36 / 12) ** 0.5, abs=1e-6)


def test_agreement_is_no_proof() -> None:
    found = paired({"x": [1.0], "y": [0.0]}, {"x": [1.0], "y": [0.0]})
    assert found is not None
    assert found.difference == 0.0
    assert found.lo < -0.3 < 0.3 < found.hi


def test_several_answers_are_one_item() -> None:
    """Differences 0.5 and 0: their mean ± 1.96 times 0.3536 / sqrt(2)."""
    found = paired({"x": [0.0, 0.0], "y": [1.0]}, {"x": [1.0, 0.0], "y": [1.0, 1.0]})
    assert found is not None
    assert (found.difference, found.wins, found.losses) == (0.25, 1, 0)
    assert found.hi == pytest.approx(0.25 + 1.959964 * 0.25, abs=1e-6)
    assert paired({"x": [1.0]}, {"y": [1.0]}) is None
