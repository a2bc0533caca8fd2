"""Does a device's ledger go forward?"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.ledger.heads import Claim, LedgerRegressedError, check_forward

KNOWN = Claim(4, "head-4", 9, 1.0, 1e-5)


def test_a_first_claim_may_be_anything() -> None:
    check_forward(None, KNOWN)


@pytest.mark.parametrize(
    "shown",
    [
        Claim(5, "head-5", 11, 1.2, 1e-5),
        Claim(5, "head-5", 11, 1.0, 1e-5),
        Claim(9, "head-9", 10, 1.0, 1e-5),
        Claim(4, "head-4", 9, 1.0, 1e-5),
        Claim(4, "head-4", 10, 1.0, 1e-5),
        Claim(5, "head-5", 11, 1.0 - 1e-12, 1e-5),
    ],
    ids=[
        "next",
        "the same claim",
        "rounds missed",
        "asked twice",
        "asked twice, another job in between",
        "noise",
    ],
)
def test_a_ledger_that_moved_on_passes(shown: Claim) -> None:
    check_forward(KNOWN, shown)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (Claim(5, "other-5", 7, 1.0, 1e-5), "had 9 entries in round 4 and has 7 in round 5"),
        (Claim(4, "other-4", 8, 1.0, 1e-5), "had 9 entries"),
        (Claim(5, "head-4", 9, 1.0, 1e-5), "nothing was charged"),
        (Claim(5, "other", 9, 1.0, 1e-5), "nothing was charged"),
        (Claim(5, "head-4", 11, 1.5, 1e-5), "nothing was charged"),
        (Claim(5, "head-5", 11, 0.8, 1e-5), "ε fell from 1 .round 4. to 0.8 .round 5."),
    ],
    ids=[
        "restored backup",
        "within a round",
        "no charge",
        "no growth",
        "another length for the same head",
        "less ε",
    ],
)
def test_a_ledger_that_went_back_or_stood_still_is_found(shown: Claim, said: str) -> None:
    with pytest.raises(LedgerRegressedError, match=said):
        check_forward(KNOWN, shown)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=2, max_size=20))
def test_over_rounds_exactly_the_ledgers_that_do_not_grow_are_found(path: list[tuple[int, int]]) -> None:
    claims = [Claim(round, f"h{round}", length, eps / 4, 0) for round, (length, eps) in enumerate(path)]
    for known, shown in itertools.pairwise(claims):
        if shown.length <= known.length or shown.epsilon < known.epsilon:
            with pytest.raises(LedgerRegressedError):
                check_forward(known, shown)
        else:
            check_forward(known, shown)
