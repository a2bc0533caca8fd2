"""What classifiers share: labelled examples alone are trained on, and scores count what was not set aside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hedgerow.models.recipe import PublicSet
from hedgerow.models.recipes.classes import accuracy, labelled
from hedgerow.models.recipes.mlp import RECIPE as MLP
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec

SPEC = TensorSpec("vector", "float32", (3,), "scores")
X = np.random.default_rng(0).random((5, 3)).astype(np.float32)
NONE = np.zeros(0, np.int64)


def public(y: np.ndarray | None, calibration: Sequence[int] = (), golden: Sequence[int] = ()) -> PublicSet:
    return PublicSet(X, y, np.array(calibration, np.int64), np.array(golden, np.int64))


@pytest.mark.parametrize("samples", [X, list(X)], ids=["array", "list"])
def test_unlabelled_samples_are_left_out_in_order(samples: np.ndarray | list[np.ndarray]) -> None:
    found, y = labelled(samples, [1, None, 0, None, 2], 3, SPEC)

    assert np.array_equal(found, X[[0, 2, 4]])
    assert y.tolist() == [1, 0, 2]
    assert y.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([None] * 5, "no labelled example"),
        ([0, 1, 2, 3, 0], "labels from 0 to 3; classes go from 0 to 2"),
        ([0, -1, 2, 1, 0], "labels from -1 to 2"),
        ([0, 1], "5 samples with 2 labels"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[int | None], why: str) -> None:
    with pytest.raises(ContentError, match=why):
        labelled(X, labels, 3, SPEC)


@pytest.mark.parametrize("bad", [X.astype(np.float64), X[:, :2], X[:, :, None]])
def test_samples_of_another_kind_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ContentError, match="expected float32"):
        labelled(bad, [0] * 5, 3, SPEC)


def test_accuracy_counts_what_was_not_set_aside() -> None:
    y = np.array([0, 1, 2, 1, 0])
    seen: list[int] = []

    def all_zero(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return np.eye(3, dtype=np.float32)[np.zeros(len(x), np.int64)]

    assert accuracy(all_zero, public(y)) == pytest.approx(2 / 5)
    assert accuracy(all_zero, public(y, [1], [2])) == pytest.approx(2 / 3)
    assert seen == [5, 3]


def test_a_set_without_labels_or_with_nothing_left_has_no_accuracy() -> None:
    with pytest.raises(ContentError, match="no labels"):
        accuracy(lambda x: x, public(None))
    with pytest.raises(ContentError, match="no public example is left"):
        accuracy(lambda x: x, public(np.zeros(5, np.int64), [0, 1, 2], [3, 4]))


def test_the_same_class_counts_whatever_the_logits() -> None:
    logits = np.array([[0.1, 0.9], [5.0, -5.0]], np.float32)

    assert MLP.agreement(logits, logits * 100) == 1.0
    assert MLP.agreement(logits, logits[::-1]) == 0.0
