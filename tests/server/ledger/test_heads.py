"""Does a device's ledger go forward?"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.ledger.heads import Claim, LedgerRegressedError, check_forward

KNOWN = Claim(4, "head-4", 1.0, 1e-5)


def test_a_first_claim_may_be_anything() -> None:
    check_forward(None, KNOWN)


@pytest.mark.parametrize(
    "shown",
    [
        Claim(5, "head-5", 1.2, 1e-5),
        Claim(9, "head-9", 1.0, 1e-5),
        Claim(4, "head-4", 1.0, 1e-5),
        Claim(5, "head-5", 1.0 - 1e-12, 1e-5),
    ],
    ids=["next", "rounds missed, nothing charged more", "asked twice in a round", "float noise"],
)
def test_a_ledger_that_moved_on_passes(shown: Claim) -> None:
    check_forward(KNOWN, shown)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (Claim(5, "head-3", 0.8, 1e-5), "ε fell from 1 .round 4. to 0.8 .round 5."),
        (Claim(4, "head-3", 0.8, 1e-5), "ε fell"),
        (Claim(5, "head-4", 1.0, 1e-5), "nothing was charged"),
        (Claim(5, "head-4", 1.5, 1e-5), "nothing was charged"),
    ],
    ids=["restored backup", "restored within a round", "no charge", "another claim on the same ledger"],
)
def test_a_ledger_that_went_back_or_stood_still_is_found(shown: Claim, said: str) -> None:
    with pytest.raises(LedgerRegressedError, match=said):
        check_forward(KNOWN, shown)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_exactly_the_falls_of_epsilon_are_found(path: list[float]) -> None:
    for round, (before, after) in enumerate(itertools.pairwise(path)):
        known, shown = Claim(round, f"h{round}", before, 0), Claim(round + 1, f"h{round + 1}", after, 0)
        if after < before - 1e-9:
            with pytest.raises(LedgerRegressedError):
                check_forward(known, shown)
        else:
            check_forward(known, shown)
