from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.agent_profile import CHANNELS, IMAGE, profile
from tests.support.bundles import normal_windows, write_bundle

from hedgerow.edge_agent.inference.fitted_file import FittedFile
from hedgerow.edge_agent.inference.tasks import AnomalyTask, ClassificationTask, make_task
from hedgerow.shared.bundle import Manifest
from hedgerow.shared.errors import ContentError, UnsupportedError
from hedgerow.shared.scoring import Fitted
from hedgerow.shared.specs import TensorSpec

HISTORY = normal_windows(50, 1)


@pytest.fixture(scope="module")
def anomaly(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_bundle(tmp_path_factory.mktemp("t") / "b", kinds=[("onnxruntime", "float32")])


@pytest.fixture(scope="module")
def image(anomaly: Manifest) -> Manifest:
    return msgspec.structs.replace(
        anomaly,
        task="classification",
        input=IMAGE,
        output=TensorSpec("logits", "float32", (3,), "scores"),
        labels=("cat", "dog", "owl"),
        lineage=msgspec.structs.replace(anomaly.lineage, feature_set="unit-brightness-16-v1"),
        scoring=None,
    )


def file(tmp_path: Path) -> FittedFile[Fitted]:
    return FittedFile(tmp_path / "fitted.json", "key", Fitted)


def zeros(x: np.ndarray) -> np.ndarray:
    """A model that has learned nothing: its residual is the window itself."""
    return np.zeros_like(x)


def test_an_anomaly_task_is_not_ready_until_it_is_fitted(anomaly: Manifest, tmp_path: Path) -> None:
    task = AnomalyTask(anomaly, profile(), file(tmp_path))
    assert not task.ready
    with pytest.raises(ContentError, match="not fitted on this device yet"):
        task.answer(HISTORY[0], np.zeros((1, 8, 3), np.float32), live=False)

    task.fit(HISTORY, zeros)

    assert task.ready
    found = task.answer(HISTORY[0], np.zeros((1, 8, 3), np.float32), live=False)
    assert found.score is not None
    assert {share.channel for share in found.attribution} == set(CHANNELS)


def test_too_few_windows_do_not_fit_and_leave_the_task_as_it_was(anomaly: Manifest, tmp_path: Path) -> None:
    task = AnomalyTask(anomaly, profile(), file(tmp_path))

    with pytest.raises(ContentError, match="3 normal windows"):
        task.fit(HISTORY[:3], zeros)
    assert not task.ready
    assert not (tmp_path / "fitted.json").exists()


def test_what_was_fitted_is_there_for_the_next_task(anomaly: Manifest, tmp_path: Path) -> None:
    AnomalyTask(anomaly, profile(), file(tmp_path)).fit(HISTORY, zeros)

    assert AnomalyTask(anomaly, profile(), file(tmp_path)).ready


def test_keeping_writes_nothing_where_nothing_moved(anomaly: Manifest, tmp_path: Path) -> None:
    task = AnomalyTask(anomaly, profile(), file(tmp_path))
    task.fit(HISTORY, zeros)
    (tmp_path / "fitted.json").unlink()
    task.answer(HISTORY[0], np.zeros((1, 8, 3), np.float32), live=True)
    task.keep()

    assert not (tmp_path / "fitted.json").exists()


def test_model_input_is_one_float_sample(anomaly: Manifest, image: Manifest, tmp_path: Path) -> None:
    window = AnomalyTask(anomaly, profile(), file(tmp_path)).prepare(HISTORY[0])
    picture = ClassificationTask(image).prepare(np.full((8, 8, 1), 16, np.uint8))

    assert window.shape == (1, 8, 3)
    assert picture.shape == (1, 8, 8, 1)
    assert {window.dtype, picture.dtype} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(picture, 1.0)


@pytest.mark.parametrize(
    ("logits", "order"),
    [
        ([1.0, 3.0, 2.0], ["dog", "owl", "cat"]),
        ([1e30, -1e30, 0.0], ["cat", "owl", "dog"]),
        ([5.0, 5.0, 5.0], ["cat", "dog", "owl"]),
    ],
)
def test_classes_come_likeliest_first_and_add_up(
    image: Manifest, logits: list[float], order: list[str]
) -> None:
    found = ClassificationTask(image).answer(
        np.zeros((8, 8, 1), np.uint8), np.array([logits], np.float32), live=False
    )

    assert [c.label for c in found.classes] == order
    assert sum(c.probability for c in found.classes) == pytest.approx(1)
    assert found.score is None
    assert not found.alarm


def test_classes_without_names_are_numbered(image: Manifest) -> None:
    found = ClassificationTask(msgspec.structs.replace(image, labels=())).answer(
        np.zeros((8, 8, 1), np.uint8), np.array([[0.0, 1.0, 0.5]], np.float32), live=False
    )

    assert [c.label for c in found.classes] == ["1", "2", "0"]


def test_labels_that_do_not_match_the_classes_are_refused(image: Manifest) -> None:
    with pytest.raises(ContentError, match="2 labels for 3 classes"):
        ClassificationTask(msgspec.structs.replace(image, labels=("cat", "dog")))


def test_an_image_transform_that_this_agent_does_not_know_is_refused(image: Manifest, tmp_path: Path) -> None:
    newer = msgspec.structs.replace(
        image, lineage=msgspec.structs.replace(image.lineage, feature_set="fancy-v9")
    )

    with pytest.raises(UnsupportedError, match="fancy-v9"):
        make_task(newer, profile(), file(tmp_path))


def test_the_manifest_decides_the_task(anomaly: Manifest, image: Manifest, tmp_path: Path) -> None:
    assert isinstance(make_task(anomaly, profile(), file(tmp_path)), AnomalyTask)
    assert isinstance(make_task(image, profile(), file(tmp_path)), ClassificationTask)
