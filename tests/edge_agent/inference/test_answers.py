"""Answers against arithmetic done another way: softmax by exact fractions, golden shares by hand, live windows kept."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.agent_profile import IMAGE, profile
from tests.support.bundles import NO_PRIVACY, normal_windows

from hedgerow.edge_agent.inference.fitted_file import FittedFile
from hedgerow.edge_agent.inference.golden import check_golden
from hedgerow.edge_agent.inference.tasks import AnomalyTask, ClassificationTask
from hedgerow.shared.bundle import Golden, Lineage, Manifest, ScoringRule
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.scoring import Fitted
from hedgerow.shared.specs import TensorSpec

LINEAGE = Lineage("job", "job", 1, "test", "0" * 64, "0" * 64, "unit-brightness-16-v1")
HISTORY = normal_windows(60, 1)
NOTHING = np.zeros((1, 8, 3), np.float32)


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "schema": 1, "model": "m", "version": 1, "task": "classification", "input": IMAGE,
        "output": TensorSpec("logits", "float32", (4,), "scores"), "recipe": "r", "parameters": {}, "artefacts": (),
        "golden": (), "gate": (), "scores": {}, "lineage": LINEAGE, "privacy": NO_PRIVACY,
    }  # fmt: skip
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def window_manifest(**options: object) -> Manifest:
    return manifest(task="anomaly", scoring=ScoringRule("residual-chart", 1, dict(options)))


@given(st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4))
def test_probabilities_are_the_softmax(logits: list[float]) -> None:
    found = ClassificationTask(manifest()).answer(
        np.zeros((8, 8, 1), np.uint8), np.array([logits], np.float32), live=False
    )

    total = math.fsum(math.exp(value) for value in logits)
    by_index = {one.index: one.probability for one in found.classes}
    for index, value in enumerate(logits):
        assert by_index[index] == pytest.approx(math.exp(value) / total, rel=1e-9)
    order = [one.index for one in found.classes]
    assert order == sorted(range(4), key=lambda index: (-logits[index], index))
    assert [one.label for one in found.classes] == [str(index) for index in order]


@given(st.floats(-(2.0**99), 2.0**99, width=32))
def test_a_constant_on_all_logits_changes_nothing(shift: float) -> None:
    task, image = ClassificationTask(manifest()), np.zeros((8, 8, 1), np.uint8)

    flat = task.answer(image, np.full((1, 4), shift, np.float32), live=False)

    assert [one.probability for one in flat.classes] == [0.25] * 4


def golden(answers: list[float], tolerance: float = 0.5) -> Manifest:
    scalar = TensorSpec("x", "float32", (1,), "scores")
    samples = tuple(
        Golden(np.float32(n).tobytes(), np.float32(value).tobytes(), {"int8": tolerance})
        for n, value in enumerate(answers)
    )
    return manifest(input=scalar, output=scalar, golden=samples)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(-12, 12)), min_size=1, max_size=6))
def test_the_worst_share_of_the_tolerance_is_told_or_the_first_sample_beyond_it(
    samples: list[tuple[int, int]],
) -> None:
    # sixteenths are exact in float32, so that the boundary is too
    recorded = [float(value) for value, _ in samples]
    off = [by / 16 for _, by in samples]
    asked: list[float] = []

    def infer(x: np.ndarray) -> np.ndarray:
        n = int(x[0, 0])
        asked.append(n)
        return np.array([[recorded[n] + off[n]]], np.float32)

    beyond = [n for n, by in enumerate(off) if abs(by) > 0.5]
    if beyond:
        with pytest.raises(ContentError, match=f"golden sample {beyond[0]}: the answer is off by"):
            check_golden(golden(recorded), "int8", infer)
        assert asked == list(range(beyond[0] + 1))
    else:
        assert check_golden(golden(recorded), "int8", infer) == max(abs(by) for by in off) / 0.5
        assert asked == list(range(len(samples)))


def test_an_answer_at_the_tolerance_passes_and_one_digit_beyond_fails() -> None:
    def by(offset: float) -> float:
        return check_golden(golden([1.0]), "int8", lambda _: np.array([[1.0 + offset]], np.float32))

    assert by(0.5) == 1.0
    with pytest.raises(ContentError, match=r"off by 0\.5, int8 allows 0\.5"):
        by(float(np.nextafter(np.float32(1.5), np.float32(2))) - 1.0)


def test_live_windows_that_moved_the_normal_are_kept_once(tmp_path: Path) -> None:
    file = FittedFile(tmp_path / "fitted.json", "key", Fitted)
    task = AnomalyTask(window_manifest(follow_rows=20.0, follow_below=1.0), profile(), file)
    task.fit(HISTORY, np.zeros_like)
    before = file.read()
    shifted = HISTORY[0] * 0 + np.float32(0.2)

    task.answer(shifted, NOTHING, live=False)
    task.keep()
    assert file.read() == before, "a question moves nothing"
    task.answer(shifted, NOTHING, live=True)
    assert file.read() == before, "moved in memory, on disk only when kept"
    task.keep()

    after = file.read()
    assert before is not None and after is not None
    assert after.mean != before.mean
    assert (after.home, after.threshold) == (before.home, before.threshold)
    (tmp_path / "fitted.json").unlink()
    task.keep()
    assert file.read() is None, "kept already"


def test_an_alarm_held_by_a_deadband_survives_a_restart(tmp_path: Path) -> None:
    file = FittedFile(tmp_path / "fitted.json", "key", Fitted)
    rule = window_manifest(release=0.2)
    task = AnomalyTask(rule, profile(), file)
    task.fit(HISTORY, np.zeros_like)
    fitted = file.read()
    assert fitted is not None

    def level(times: float) -> np.ndarray:
        height = fitted.mean[0] + times * fitted.threshold * fitted.sigma[0]
        return np.tile(np.array([height, fitted.mean[1], fitted.mean[2]], np.float32), (8, 1))

    assert not task.answer(level(0.5), NOTHING, live=True).alarm
    assert task.answer(level(1.5), NOTHING, live=True).alarm
    task.keep()
    again = AnomalyTask(rule, profile(), file)

    assert again.answer(level(0.5), NOTHING, live=True).alarm, "still on, above its release"
    assert not again.answer(level(0.1), NOTHING, live=True).alarm
    assert not again.answer(level(0.5), NOTHING, live=True).alarm


def test_an_anomaly_bundle_without_a_rule_or_for_other_channels_is_refused(tmp_path: Path) -> None:
    file = FittedFile(tmp_path / "fitted.json", "key", Fitted)
    rule = ScoringRule("residual-chart", 1, {})

    with pytest.raises(ContentError, match="without a scoring rule"):
        AnomalyTask(manifest(task="anomaly"), profile(), file)
    with pytest.raises(ContentError, match=r"channels c, b, a; profile 'test-device' has a, b, c"):
        AnomalyTask(manifest(task="anomaly", scoring=rule, channels=("c", "b", "a")), profile(), file)
    with pytest.raises(ConfigError, match="residual-chart v2 is not known"):
        AnomalyTask(
            manifest(task="anomaly", scoring=msgspec.structs.replace(rule, version=2)), profile(), file
        )


def test_a_model_that_answers_nonsense_while_fitting_leaves_the_task_unfitted(tmp_path: Path) -> None:
    file = FittedFile(tmp_path / "fitted.json", "key", Fitted)
    task = AnomalyTask(window_manifest(), profile(), file)

    with pytest.raises(ContentError, match="not finite"):
        task.fit(HISTORY, lambda x: np.full_like(x, np.nan))

    assert not task.ready
    assert file.read() is None
