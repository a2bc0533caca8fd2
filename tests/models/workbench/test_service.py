"""The workbench's answers in process: every request gets one, whatever is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.support.bundles import package_request

from hedgerow.models.recipe import Parameters, PublicSet
from hedgerow.models.recipes.digits import DigitsCnn
from hedgerow.models.workbench import modules
from hedgerow.models.workbench.messages import (
    DescribeRequest,
    Description,
    Failure,
    InitialRequest,
    Model,
    PackageResult,
    Request,
    Response,
    ScoreRequest,
    Scores,
)
from hedgerow.models.workbench.modules import Work, Works
from hedgerow.models.workbench.service import Service
from hedgerow.shared.errors import ConfigError, ContentError


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


def ask(service: Service, request: Request) -> Response:
    answer: Response = msgspec.msgpack.decode(service.answer(msgspec.msgpack.encode(request)), type=Response)
    return answer


@pytest.mark.parametrize("recipe", ["digits-cnn", "anomaly-autoencoder"])
def test_each_request_gets_its_own_kind_of_answer(service: Service, recipe: str, tmp_path: Path) -> None:
    about = ask(service, DescribeRequest(recipe, {}))
    model = ask(service, InitialRequest(recipe, {}, 1))
    assert isinstance(about, Description)
    assert isinstance(model, Model)
    assert len(model.data) == 4 * about.n_parameters
    scores = ask(service, ScoreRequest(recipe, {}, model.data))
    assert isinstance(scores, Scores)
    assert about.metric in scores.scores
    packed = ask(service, package_request(recipe, model.data, tmp_path / "b"))
    assert isinstance(packed, PackageResult)
    assert packed.scores[about.metric] == scores.scores[about.metric]


def test_a_seed_decides_the_initial_model_whatever_was_asked_before(service: Service) -> None:
    first = ask(service, InitialRequest("digits-cnn", {}, 5))
    ask(service, InitialRequest("anomaly-autoencoder", {}, 6))
    torch.rand(10)

    assert ask(service, InitialRequest("digits-cnn", {}, 5)) == first


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "DecodeError"),
        (b"\xc1", "DecodeError"),
        (msgspec.msgpack.encode({"type": "shutdown"}), "Invalid value"),
    ],
)
def test_what_is_no_request_is_answered_with_a_failure(service: Service, data: bytes, words: str) -> None:
    answer = msgspec.msgpack.decode(service.answer(data), type=Response)

    assert isinstance(answer, Failure)
    assert answer.kind == "HedgerowError"
    assert words in answer.message


def test_an_unforeseen_error_becomes_a_failure_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(Work, "load", breaks)
    answer = ask(service, ScoreRequest("digits-cnn", {}, b""))

    assert isinstance(answer, Failure)
    assert "ZeroDivisionError: surprise" in answer.message


def test_recipes_at_work_are_kept_but_only_so_many() -> None:
    works = Works()
    first = works.get("digits-cnn", {"width": 8})
    assert works.get("digits-cnn", {"width": 8}) is first
    for width in range(9, 9 + modules._KEPT):
        works.get("digits-cnn", {"width": width})

    assert works.get("digits-cnn", {"width": 8}) is not first


def test_parameters_in_another_order_are_the_same_work() -> None:
    works = Works()

    first = works.get("digits-cnn", {"width": 8, "filters": 4})
    assert works.get("digits-cnn", {"filters": 4, "width": 8}) is first
    with pytest.raises(ConfigError):
        works.get("digits-cnn", {"filters": 0})


def test_predicting_in_batches_is_predicting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(DigitsCnn(), {})
    x = work.public.x[:50]
    at_once = work.predict(x)
    monkeypatch.setattr(modules, "_BATCH", 7)

    np.testing.assert_allclose(work.predict(x), at_once, atol=1e-6)


class Unfit(DigitsCnn):
    """Digits whose public set is not what the model takes."""

    def __init__(self, x: np.ndarray, golden: Sequence[int]) -> None:
        self.bad = PublicSet(x, None, np.arange(1), np.array(golden, np.int64))

    def public_set(self, parameters: Parameters) -> PublicSet:
        return self.bad


@pytest.mark.parametrize(
    ("x", "golden"),
    [
        (np.zeros((4, 8, 8), np.float32), [0]),
        (np.zeros((4, 8, 8, 1), np.float64), [0]),
        (np.zeros((4, 8, 8, 1), np.float32), []),
    ],
)
def test_a_public_set_that_does_not_fit_the_model_is_refused(x: np.ndarray, golden: Sequence[int]) -> None:
    with pytest.raises(ContentError, match="its public set is"):
        _ = Work(Unfit(x, golden), {}).public
