"""The ledger of a run: charged once a round whatever happens, readable after a crash, refused when it is another's."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.events import (
    CentralRounds,
    DpSgdSteps,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
)
from hedgerow.simulations.run.curve import _rounds, curve
from hedgerow.simulations.run.ledger import Charge, Entry, Ledger
from hedgerow.simulations.run.spending import Spending


def entry(round: int, steps: int = 3, trial: str = "") -> Entry:
    return Entry(trial, round, (Charge(DpSgdSteps(0.1, 1.5, steps), (0, 2)),))


def test_entries_survive_and_come_back_in_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for round in (1, 2, 3):
        assert ledger.charge(entry(round))
    ledger.flush()
    ledger.close()
    again = Ledger(tmp_path / "ledger.jsonl")
    assert list(again) == [entry(1), entry(2), entry(3)]
    again.close()


def test_charging_a_round_again_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(3):
        ledger = Ledger(path)
        ledger.charge(entry(1))
        assert not ledger.charge(entry(1))
        ledger.close()
    assert len(path.read_bytes().splitlines()) == 1


def test_trials_are_charged_on_their_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.charge(entry(1, trial="0000"))
    assert ledger.charge(entry(1, trial="0001"))
    ledger.close()


def test_a_round_charged_differently_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge(entry(1, steps=3))
    with pytest.raises(IntegrityError, match="round 1 was charged differently"):
        ledger.charge(entry(1, steps=4))
    ledger.close()


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge(entry(1))
    ledger.charge(entry(2))
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = Ledger(path)
    assert list(again) == [entry(1)]
    again.charge(entry(2))
    again.close()
    assert path.read_bytes() == whole


def test_a_damaged_line_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"trial":"","round":1,"charges":[]}\n{"trial":3}\n')
    with pytest.raises(IntegrityError, match=r"ledger\.jsonl: line 2 is damaged"):
        Ledger(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/ledger\.jsonl"):
        Ledger(tmp_path / "file" / "ledger.jsonl")


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.charge(entry(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        with pytest.raises(StorageError, match=r"ledger\.jsonl: cannot be written"):
            for round in range(2, 9):
                ledger.charge(entry(round))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ledger.close()


def test_spending_is_the_largest_over_devices() -> None:
    spending = Spending(4)
    spending.add([Charge(DpSgdSteps(0.1, 1.5, 3), (0, 1)), Charge(DpSgdSteps(0.2, 1.2, 2), (2,))])
    spending.add([Charge(DpSgdSteps(0.1, 1.5, 3), (1,))])
    expected = max(epsilon([DpSgdSteps(0.1, 1.5, 6)], 1e-4), epsilon([DpSgdSteps(0.2, 1.2, 2)], 1e-4))
    assert expected <= spending.epsilon(1e-4) <= expected + 1e-3
    assert spending.epsilon_now(1e-4) == pytest.approx(expected, rel=1e-3)


def test_mechanisms_on_the_same_device_compose() -> None:
    spending = Spending(3)
    one, other = DpSgdSteps(0.1, 1.5, 3), DpSgdSteps(0.2, 1.2, 2)
    spending.add([Charge(one, (0, 1)), Charge(other, (1, 2))])
    assert spending.heaviest() == [(one, other)]
    assert spending.epsilon(1e-4) == pytest.approx(epsilon([one, other], 1e-4))


def test_an_event_without_devices_is_everybodys() -> None:
    spending = Spending(3)
    spending.add([Charge(CentralRounds(0.1, 2.0, 1))] * 5)
    assert spending.heaviest() == [(CentralRounds(0.1, 2.0, 5),)]


def test_nothing_spent_is_zero_and_an_unprotected_release_is_remembered() -> None:
    spending = Spending(3)
    assert spending.epsilon(1e-4) == spending.epsilon_now(1e-4) == 0.0
    spending.add([Charge(UnprotectedRelease("model updates"))])
    assert spending.unprotected


def test_an_event_that_nobody_here_makes_is_refused() -> None:
    with pytest.raises(TypeError, match="GaussianRelease"):
        Spending(1).add([Charge(GaussianRelease(1.0))])


@pytest.mark.parametrize(("rate", "count"), [(0.01, 40), (0.3, 1), (1.0, 40)])
def test_the_curve_is_an_upper_bound_close_to_the_accounting(rate: float, count: int) -> None:
    events: tuple[PrivacyEvent, ...] = (DpSgdSteps(rate, 1.3, count),)
    exact = epsilon(events, 1e-5)
    assert exact * (1 - 1e-9) <= curve(events, 1e-5) <= exact + 1e-3
    assert curve((CentralRounds(rate, 1.3, count),), 1e-5) == pytest.approx(curve(events, 1e-5), rel=1e-7)
    if rate < 1:
        replaced = epsilon(events, 1e-5, "pld", "replace")
        assert replaced * (1 - 1e-9) <= curve(events, 1e-5, "replace") <= replaced + 1e-3


def test_the_curve_grows() -> None:
    found = [curve((DpSgdSteps(0.1, 1.0, count),), 1e-5) for count in range(1, 20)]
    assert np.all(np.diff(found) > 0)
    assert curve((), 1e-5) == 0.0


def test_the_curve_of_central_rounds_does_not_depend_on_what_was_asked_before() -> None:
    def asked(counts: range) -> list[float]:
        curve.cache_clear()
        _rounds.cache_clear()
        return [curve((CentralRounds(0.1, 1.0, count),), 1e-5) for count in counts]

    grown = asked(range(60, 70))
    assert asked(range(67, 70)) == grown[7:]
    assert np.all(np.diff(grown) > 0)
    assert grown[-1] == pytest.approx(epsilon([CentralRounds(0.1, 1.0, 69)], 1e-5), abs=1e-3)
