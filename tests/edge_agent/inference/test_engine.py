"""The chain champion, previous, baseline, unknown, and what each answer says of its origin."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.support.agent_profile import CHANNELS, profile
from tests.support.bundles import (
    Overflowing,
    WindowNet,
    normal_windows,
    package_request,
    rewrite,
    write_bundle,
)
from tests.support.nets import torch_answers

from hedgerow.edge_agent.inference.engine import Engine, FitPolicy
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.models.workbench.modules import Work
from hedgerow.models.workbench.package import package
from hedgerow.shared.bundle import decode_manifest, sha256_hex
from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, StorageError
from hedgerow.shared.specs import TensorSpec

HISTORY = normal_windows(120, 3)
NOW = normal_windows(1, 99)[0]


class Samples:
    """A device's stored samples, as the engine asks for them."""

    def __init__(self, windows: np.ndarray = HISTORY) -> None:
        self.windows = windows
        self.asked = 0

    def __call__(self, spec: str, limit: int) -> np.ndarray:
        self.asked += 1
        if spec != "window":
            return np.zeros((0, 8, 8, 1), np.uint8)
        return self.windows[-limit:]


def engine(state: Path, samples: Samples | None = None, **options: object) -> Engine:
    return Engine(profile(**options), state, samples or Samples())  # type: ignore[arg-type]


def identity(folder: Path) -> str:
    return sha256_hex((folder / "manifest.json").read_bytes())


@pytest.fixture
def bundles(originals: Path, tmp_path: Path) -> Path:
    """The bundles, in slots of this test's own: what is fitted lies beside them."""
    return Path(shutil.copytree(originals, tmp_path / "slots"))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root / "one", WindowNet(1), version=1)
    write_bundle(root / "two", WindowNet(2), version=2)
    write_bundle(root / "three", WindowNet(3), version=3)
    write_bundle(root / "overflowing", Overflowing(), version=9, kinds=[("onnxruntime", "float32")])
    write_bundle(root / "overflowing-litert", Overflowing(), version=9, kinds=[("litert", "float32")])
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "bundle"
    torch.manual_seed(0)
    work = Work(DIGITS, {})
    from hedgerow.models.export.vector import to_vector

    package(package_request("digits-cnn", to_vector(work.module).tobytes(), folder), work)
    return folder


def test_before_any_model_the_baseline_answers(tmp_path: Path) -> None:
    found = engine(tmp_path).predict("window", NOW)

    assert found.reason == "baseline"
    assert found.source.model == ""
    assert found.answer.threshold == 6.0
    assert not found.answer.alarm
    assert {share.channel for share in found.answer.attribution} == set(CHANNELS)
    assert found.latency_us >= 1


def test_with_neither_model_nor_history_the_answer_is_unknown_and_says_why(tmp_path: Path) -> None:
    found = engine(tmp_path, Samples(HISTORY[:0])).predict("window", NOW)

    assert (found.reason, found.answer.score, found.answer.alarm) == ("unknown", None, False)
    assert found.detail == "baseline: not fitted on this device yet"


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_loaded_model_answers_as_champion(
    tmp_path: Path, bundles: Path, runtime: str, precision: str
) -> None:
    serving = engine(tmp_path, runtimes=(runtime,), precision=precision)
    serving.load(bundles / "one")
    found = serving.predict("window", NOW)

    assert found.reason == "champion"
    assert (found.source.model, found.source.version) == ("pump", 1)
    assert found.source.bundle == identity(bundles / "one")
    assert (found.source.runtime, found.source.precision) == (runtime, precision)
    assert "CPU" in found.source.provider
    assert found.answer.score is not None
    assert found.answer.threshold is not None
    assert sum(share.share for share in found.answer.attribution) == pytest.approx(1)


def test_a_window_unlike_the_history_is_an_alarm_attributed_to_its_channel(
    tmp_path: Path, bundles: Path
) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    odd = NOW.copy()
    odd[:, 1] += 3.0
    found = serving.predict("window", odd)

    assert found.answer.alarm
    assert found.answer.attribution[0].channel == "b"
    assert serving.alarms_total == 1
    assert serving.predictions_total == 1


def test_an_image_gets_its_classes_likeliest_first(tmp_path: Path, digits: Path) -> None:
    serving = engine(tmp_path)
    serving.load(digits)
    image = np.random.default_rng(0).integers(0, 17, size=(8, 8, 1), dtype=np.uint8)
    classes = serving.predict("digit", image).answer.classes

    work = Work(DIGITS, {})
    assert len(classes) == 10
    assert sum(c.probability for c in classes) == pytest.approx(1)
    assert [c.probability for c in classes] == sorted((c.probability for c in classes), reverse=True)
    assert all(c.label == DIGITS.labels({})[c.index] for c in classes)
    assert work.recipe.name == "digits-cnn"


def test_an_images_class_is_the_float_models(tmp_path: Path, digits: Path) -> None:
    manifest = decode_manifest((digits / "manifest.json").read_bytes())
    serving = engine(tmp_path, precision="float32")
    serving.load(digits)

    for golden in manifest.golden:
        image = np.rint(np.frombuffer(golden.input, "<f4") * 16).astype(np.uint8).reshape(8, 8, 1)
        found = serving.predict("digit", image).answer
        assert found.classes[0].index == int(np.frombuffer(golden.output, "<f4").argmax())


def test_an_image_without_a_model_is_unknown(tmp_path: Path) -> None:
    found = engine(tmp_path).predict("digit", np.zeros((8, 8, 1), np.uint8))

    assert (found.reason, found.detail) == ("unknown", "no model and no baseline for this tensor")


@pytest.mark.parametrize("name", ["overflowing", "overflowing-litert"])
def test_a_champion_that_answers_with_infinity_gives_way_to_the_previous(
    tmp_path: Path, bundles: Path, name: str
) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    serving.load(bundles / name)
    calm = serving.predict("window", NOW)
    wild = serving.predict("window", np.full_like(NOW, 4.0))

    assert (calm.reason, calm.source.version) == ("champion", 9)
    assert (wild.reason, wild.source.version) == ("previous", 1)
    assert wild.detail == "champion: the model answered with values that are not finite"
    assert wild.answer.alarm
    assert serving.failures("pump") == 1


def test_without_a_previous_the_baseline_takes_over(tmp_path: Path, bundles: Path) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "overflowing")
    wild = serving.predict("window", np.full_like(NOW, 4.0))

    assert wild.reason == "baseline"
    assert wild.answer.alarm


def test_a_new_champion_makes_the_old_one_previous_and_the_one_before_goes(
    tmp_path: Path, bundles: Path
) -> None:
    serving = engine(tmp_path)
    for name in ("one", "two", "three"):
        serving.load(bundles / name)

    assert serving.predict("window", NOW).source.version == 3
    (report,) = serving.reports()
    assert (report.model, report.version, report.state) == ("pump", 3, "serving")
    assert report.manifest_sha256 == identity(bundles / "three")


def test_only_the_previous_slot_left_answers_with_its_reason(tmp_path: Path, bundles: Path) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one", role="previous")
    found = serving.predict("window", NOW)

    assert (found.reason, found.source.version) == ("previous", 1)
    assert serving.reports()[0].version == 1


def test_unloading_a_model_leaves_the_baseline(tmp_path: Path, bundles: Path, digits: Path) -> None:
    serving = engine(tmp_path)
    for folder in (bundles / "one", bundles / "two", digits):
        serving.load(folder)
    serving.unload("pump")

    assert serving.predict("window", NOW).reason == "baseline"
    assert serving.predict("digit", np.zeros((8, 8, 1), np.uint8)).reason == "champion"


def test_closing_leaves_the_baseline_and_frees_the_models(tmp_path: Path, bundles: Path) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    serving.close()

    assert serving.predict("window", NOW).reason == "baseline"
    assert serving.reports() == ()


@pytest.mark.parametrize("bad", ["shape", "dtype", "nan", "spec"])
def test_a_sample_that_is_none_is_the_callers_error(tmp_path: Path, bundles: Path, bad: str) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    sample = {
        "shape": NOW[:-1],
        "dtype": NOW.astype(np.float64),
        "nan": np.where(np.arange(24).reshape(8, 3) == 5, np.nan, NOW).astype(np.float32),
        "spec": NOW,
    }[bad]

    with pytest.raises(ContentError, match="tensor"):
        serving.predict("nothing" if bad == "spec" else "window", sample)
    assert serving.predictions_total == 0


def changed(bundles: Path, target: Path, **changes: object) -> Path:
    manifest = write_bundle(target, WindowNet(1), kinds=[("onnxruntime", "float32")])
    rewrite(target, msgspec.structs.replace(manifest, **changes))
    return target


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"input": TensorSpec("other", "float32", (8, 3), "window")},
            ContentError,
            "this device has digit uint8",
        ),
        (
            {"input": TensorSpec("window", "float32", (9, 3), "window")},
            ContentError,
            r"takes window float32 \(9, 3\)",
        ),
        ({"channels": ("a", "c", "b")}, ContentError, "is for channels a, c, b"),
        ({"scoring": None}, ContentError, "without a scoring rule"),
        ({"scoring": {"name": "magic", "version": 1}}, ConfigError, "magic"),
        ({"schema": 7}, ContentError, "schema 7"),
    ],
)
def test_a_bundle_that_does_not_fit_this_device_is_refused_and_nothing_changes(
    tmp_path: Path, bundles: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    if isinstance(changes.get("scoring"), dict):
        from hedgerow.shared.bundle import ScoringRule

        changes = {"scoring": ScoringRule(**changes["scoring"])}

    with pytest.raises(error, match=words):
        serving.load(changed(bundles, tmp_path / "bad", **changes))
    assert serving.predict("window", NOW).source.bundle == identity(bundles / "one")


def test_a_tampered_artefact_is_refused_and_the_champion_stays(tmp_path: Path, bundles: Path) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    folder = tmp_path / "bad"
    write_bundle(folder, WindowNet(1))
    path = folder / "model.int8.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(IntegrityError, match="differs from the manifest"):
        serving.load(folder)
    with pytest.raises(StorageError):
        serving.load(tmp_path / "nothing")
    assert serving.predict("window", NOW).reason == "champion"


def test_a_bundle_waits_for_enough_history_and_then_serves_unasked(tmp_path: Path, bundles: Path) -> None:
    samples = Samples(HISTORY[:10])
    serving = Engine(profile(), tmp_path, samples, FitPolicy(min_samples=32, retry_every=2))
    serving.load(bundles / "one")
    early = serving.predict("window", NOW)
    samples.windows = HISTORY
    later = [serving.predict("window", NOW).reason for _ in range(3)]

    assert early.reason == "unknown"
    assert early.detail == "champion: not fitted on this device yet; baseline: not fitted on this device yet"
    assert later[-1] == "champion"


def test_fitting_looks_at_no_more_than_its_bound(tmp_path: Path, bundles: Path) -> None:
    asked: list[int] = []

    def history(spec: str, limit: int) -> np.ndarray:
        asked.append(limit)
        return HISTORY[:limit]

    serving = Engine(profile(), tmp_path, history, FitPolicy(max_samples=40))
    serving.load(bundles / "one")

    assert asked == [40]
    assert serving.predict("window", NOW).reason == "champion"


def test_what_one_artefact_fitted_is_not_used_for_another(tmp_path: Path, bundles: Path) -> None:
    for precision in ("int8", "float32"):
        samples = Samples()
        serving = engine(tmp_path / precision, samples, precision=precision)
        serving.load(bundles / "one")
        assert samples.asked == 1


def test_what_was_fitted_serves_after_a_restart_without_history(tmp_path: Path, bundles: Path) -> None:
    folder = tmp_path / "slots" / "pump" / "a"
    write_bundle(folder, WindowNet(1))
    first = engine(tmp_path / "state")
    first.load(folder)
    before = first.predict("window", NOW).answer
    first.predict("window", NOW)

    empty = Samples(HISTORY[:0])
    second = engine(tmp_path / "state", empty)
    second.load(folder)

    assert second.predict("window", NOW).answer == before
    assert [path.name for path in folder.parent.glob("fitted-*")] == [f"fitted-{identity(folder)[:16]}.json"]
    second.close()
    assert (second.predict("window", NOW).reason, empty.asked > 0) == ("baseline", False)


def test_latencies_are_counted_per_model(tmp_path: Path, bundles: Path, digits: Path) -> None:
    serving = engine(tmp_path)
    serving.load(bundles / "one")
    serving.load(digits)
    for _ in range(5):
        serving.predict("window", NOW)
    serving.predict("digit", np.zeros((8, 8, 1), np.uint8))

    found = serving.latency()
    assert {model: sum(histogram.counts) for model, histogram in found.items()} == {"pump": 5, "a-model": 1}


def test_the_score_is_the_scorers_on_the_models_own_output(tmp_path: Path, bundles: Path) -> None:
    """The engine adds nothing: the same rule over torch's output gives the same score up to float rounding."""
    from hedgerow.shared.bundle import ScoringRule
    from hedgerow.shared.scoring import Scorer

    serving = engine(tmp_path, precision="float32")
    serving.load(bundles / "one")
    found = serving.predict("window", NOW).answer

    net, scorer = WindowNet(1), Scorer(ScoringRule("residual-chart", 1, {}), profile())
    fitted = scorer.fit(HISTORY, lambda x: torch_answers(net, x))
    expected = scorer.score(NOW, torch_answers(net, scorer.transform(NOW[None], fitted)), fitted)
    assert found.score == pytest.approx(expected.value, rel=1e-4)
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-4)


def test_live_windows_move_what_is_normal_and_questions_do_not(tmp_path: Path, bundles: Path) -> None:
    from hedgerow.shared.bundle import ScoringRule

    folder = tmp_path / "following" / "slot"
    write_bundle(folder, WindowNet(1), scoring=ScoringRule("residual-chart", 1, {"follow_rows": 40.0}))
    serving = engine(tmp_path)
    serving.load(folder)
    # a touch off the mean: not enough for an alarm, so that the rule follows it
    drifted = HISTORY.mean(axis=0) + np.float32(0.05)
    before = serving.predict("window", drifted).answer.score
    assert serving.predict("window", drifted).answer.score == before

    for _ in range(5):
        serving.predict("window", drifted, live=True)
    after = serving.predict("window", drifted).answer.score

    assert before is not None
    assert after is not None
    assert after < before
    serving.close()
    again = engine(tmp_path, Samples(HISTORY[:0]))
    again.load(folder)
    assert again.predict("window", drifted).answer.score == after, "what moved was kept on disk"
