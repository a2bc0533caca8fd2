"""One bundle under use: what counts as a failure, what retiring waits for, and who answers when one cannot."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.agent_profile import profile
from tests.support.bundles import normal_windows, write_bundle

from hedgerow.edge_agent.inference.baseline import Baseline
from hedgerow.edge_agent.inference.bundle_folder import BundleFolder, read_bundle
from hedgerow.edge_agent.inference.chain import Chain
from hedgerow.edge_agent.inference.loader import Loaded
from hedgerow.edge_agent.inference.prediction import Answer
from hedgerow.edge_agent.inference.served import RetiredError, Served
from hedgerow.shared.errors import ContentError
from hedgerow.shared.scoring.values import Predict

WINDOW = normal_windows(1, 5)[0]
HISTORY = normal_windows(40, 6)


class Doubling:
    """A runtime that gives back twice the input, or fails as it is told; it reuses its buffer as real ones do."""

    name, precision, provider, wanted_provider = "onnxruntime", "int8", "Test", "Test"

    def __init__(self) -> None:
        self.closed = 0
        self.fail: Exception | None = None
        self.value: float | None = None
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self._out = np.zeros((1, *WINDOW.shape), np.float32)

    def infer(self, x: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.go_on.wait(30)
        assert not self.closed, "nobody may ask a freed engine"
        if self.fail is not None:
            raise self.fail
        self._out[:] = 2 * x if self.value is None else self.value
        return self._out

    def close(self) -> None:
        self.closed += 1


class Summing:
    """A task whose answer is the sum of the output."""

    def __init__(self, ready: bool = True) -> None:
        self.ready = ready
        self.kept = 0
        self.seen: list[Any] = []
        self.lives: list[bool] = []

    def fit(self, samples: np.ndarray, predict: Predict) -> None:
        if len(samples) < 2:
            raise ContentError("too few")
        self.seen = predict(samples).tolist()
        self.ready = True

    def prepare(self, sample: np.ndarray) -> np.ndarray:
        return np.asarray(sample[None], np.float32)

    def answer(self, sample: np.ndarray, output: np.ndarray, live: bool) -> Answer:
        self.lives.append(live)
        if float(output.flat[0]) < -90:
            raise ContentError("means nothing")
        return Answer(score=float(output.sum()))

    def keep(self) -> None:
        self.kept += 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BundleFolder:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    write_bundle(folder, kinds=[("onnxruntime", "float32")])
    return read_bundle(folder)


def served(
    bundle: BundleFolder, *, ready: bool = True, skipped: tuple[str, ...] = ()
) -> tuple[Served, Doubling, Summing]:
    runtime, task = Doubling(), Summing(ready)
    return Served(bundle, Loaded(bundle.manifest.artefacts[0], runtime, skipped), task), runtime, task  # type: ignore[arg-type]


def test_an_answer_is_the_tasks_on_the_engines_output(bundle: BundleFolder) -> None:
    link, _, task = served(bundle, skipped=("a", "b"))

    assert link.answer(WINDOW, live=True).score == pytest.approx(2 * float(WINDOW.sum()), rel=1e-5)
    link.answer(WINDOW, live=False)

    assert task.lives == [True, False]
    assert (link.source.bundle, link.source.runtime, link.source.precision) == (
        bundle.identity,
        "onnxruntime",
        "int8",
    )
    assert link.skipped == ("a", "b")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_finite_is_a_failure_and_no_latency(bundle: BundleFolder, value: float) -> None:
    link, runtime, task = served(bundle)
    runtime.value = value

    with pytest.raises(ContentError, match="not finite"):
        link.answer(WINDOW, live=True)

    assert (link.failures, sum(link.latency().counts), task.lives) == (1, 0, [])


def test_failures_of_engine_and_task_count_and_the_next_sample_is_answered(bundle: BundleFolder) -> None:
    link, runtime, _ = served(bundle)
    runtime.fail = ContentError("the engine stumbled")
    with pytest.raises(ContentError, match="stumbled"):
        link.answer(WINDOW, live=False)
    runtime.fail = None
    with pytest.raises(ContentError, match="means nothing"):
        link.answer(np.full_like(WINDOW, -50), live=False)
    link.answer(WINDOW, live=False)

    assert link.failures == 2
    assert sum(link.latency().counts) == 1


def test_fitting_sees_each_samples_own_output_though_the_engine_reuses_its_buffer(
    bundle: BundleFolder,
) -> None:
    link, _, task = served(bundle, ready=False)
    assert not link.ready

    link.fit(HISTORY)

    assert link.ready
    np.testing.assert_array_equal(np.array(task.seen, np.float32), 2 * HISTORY)


def test_a_retired_bundle_frees_its_engine_once_keeps_what_moved_and_says_so(bundle: BundleFolder) -> None:
    link, runtime, task = served(bundle)
    link.retire()
    link.retire()

    assert (runtime.closed, task.kept) == (1, 1)
    with pytest.raises(RetiredError):
        link.answer(WINDOW, live=False)
    with pytest.raises(RetiredError):
        link.fit(HISTORY)
    assert link.failures == 0, "being retired is no failure of the model"


def test_retiring_waits_for_the_answer_in_progress(bundle: BundleFolder) -> None:
    link, runtime, _ = served(bundle)
    runtime.go_on.clear()
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(link.answer(WINDOW, live=False)))
    asking.start()
    assert runtime.entered.wait(30)
    retiring = threading.Thread(target=link.retire)
    retiring.start()
    assert runtime.closed == 0

    runtime.go_on.set()
    asking.join(30)
    retiring.join(30)

    assert runtime.closed == 1
    assert len(answers) == 1


def fitted_baseline(folder: Path) -> Baseline:
    made = Baseline(profile(), folder)
    made.fit(HISTORY)
    return made


def test_the_champion_answers_and_nobody_else_is_asked(bundle: BundleFolder, tmp_path: Path) -> None:
    (first, _, _), (second, _, other) = served(bundle), served(bundle)

    found = Chain(first, second, fitted_baseline(tmp_path)).answer(WINDOW, live=True)

    assert (found.reason, found.detail) == ("champion", "")
    assert found.source == first.source
    assert other.lives == []


def test_each_link_that_could_not_says_why_in_order(bundle: BundleFolder, tmp_path: Path) -> None:
    (first, runtime, _), (second, _, _) = served(bundle), served(bundle, ready=False)
    runtime.fail = ContentError("broken")

    last = Chain(first, second, Baseline(profile(), tmp_path / "unfitted")).answer(WINDOW, live=False)
    base = Chain(first, second, fitted_baseline(tmp_path / "fitted")).answer(WINDOW, live=False)

    why = "champion: broken; previous: not fitted on this device yet"
    assert (base.reason, base.detail, base.source.model) == ("baseline", why, "")
    assert base.answer.threshold == profile().baseline_threshold
    assert (last.reason, last.answer) == ("unknown", Answer())
    assert last.detail == f"{why}; baseline: not fitted on this device yet"


def test_a_previous_that_answers_says_why_the_champion_did_not(bundle: BundleFolder) -> None:
    (first, runtime, _), (second, _, _) = served(bundle), served(bundle)
    runtime.value = np.nan

    found = Chain(first, second).answer(WINDOW, live=False)

    assert found.reason == "previous"
    assert found.answer.score == pytest.approx(2 * float(WINDOW.sum()), rel=1e-5)
    assert found.detail == "champion: the model answered with values that are not finite"


def test_an_empty_chain_has_an_answer_too() -> None:
    found = Chain().answer(WINDOW, live=False)

    assert (found.reason, found.detail) == ("unknown", "no model and no baseline for this tensor")
    assert not Chain().unfitted


def test_a_retired_link_sends_the_caller_back_to_ask_again(bundle: BundleFolder, tmp_path: Path) -> None:
    link, _, _ = served(bundle)
    link.retire()

    with pytest.raises(RetiredError):
        Chain(link, None, fitted_baseline(tmp_path)).answer(WINDOW, live=False)


@pytest.mark.parametrize(
    ("champion", "previous", "baseline", "unfitted"),
    [(True, True, True, False), (False, True, True, True), (True, False, True, True), (True, True, False, True)],
)  # fmt: skip
def test_a_chain_waits_to_be_fitted_while_any_link_does(
    bundle: BundleFolder, tmp_path: Path, champion: bool, previous: bool, baseline: bool, unfitted: bool
) -> None:
    base = fitted_baseline(tmp_path) if baseline else Baseline(profile(), tmp_path)

    chain = Chain(served(bundle, ready=champion)[0], served(bundle, ready=previous)[0], base)

    assert chain.unfitted is unfitted


def test_threads_that_ask_at_once_each_get_their_own_answer(bundle: BundleFolder) -> None:
    link, _, _ = served(bundle)
    wrong: list[float] = []

    def ask(value: float) -> None:
        for _ in range(100):
            score = link.answer(np.full_like(WINDOW, value), live=False).score
            if score != 2 * value * WINDOW.size:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert wrong == []
    assert sum(link.latency().counts) == 400
