from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.agent_profile import profile
from tests.support.bundles import normal_windows

from hedgerow.edge_agent.inference.baseline import Baseline
from hedgerow.shared.errors import ContentError

HISTORY = normal_windows(60, 2)


def test_it_answers_once_it_is_fitted_and_not_before(tmp_path: Path) -> None:
    link = Baseline(profile(), tmp_path)
    with pytest.raises(ContentError, match="not fitted"):
        link.answer(HISTORY[0])

    link.fit(HISTORY)

    assert link.ready
    assert not link.answer(HISTORY[0]).alarm


def test_a_channel_far_from_where_it_was_raises_the_alarm_and_is_named(tmp_path: Path) -> None:
    link = Baseline(profile(), tmp_path)
    link.fit(HISTORY)
    odd = HISTORY[0].copy()
    odd[:, 2] += 5
    found = link.answer(odd)

    assert found.alarm
    assert found.attribution[0].channel == "c"
    assert found.score is not None
    assert found.threshold == profile().baseline_threshold


def test_the_next_process_finds_what_was_fitted(tmp_path: Path) -> None:
    first = Baseline(profile(), tmp_path)
    first.fit(HISTORY)

    assert Baseline(profile(), tmp_path).answer(HISTORY[1]) == first.answer(HISTORY[1])


def test_another_profile_version_is_fitted_anew(tmp_path: Path) -> None:
    Baseline(profile(), tmp_path).fit(HISTORY)

    assert not Baseline(msgspec.structs.replace(profile(), version=2), tmp_path).ready


def test_too_few_windows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="at least"):
        Baseline(profile(), tmp_path).fit(np.zeros((1, 8, 3), np.float32))
