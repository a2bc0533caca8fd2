"""DP-SGD against hand calculation: per-example clipping, noise on the sum, the constant denominator, odd gradients.

Statistical bounds are six standard errors: a sound mechanism fails one about once in five hundred million runs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.tiny_recipe import RECIPE, WIDTH, examples

from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.edge_agent.trainer.dpsgd import PrivateTrainer
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import Floats, TrainingSet
from hedgerow.shared.job import TrainingSpec
from hedgerow.shared.privacy.noise import SystemRandom

SIX = 6.0
TINY_NOISE = 1e-9


def trainer(x: Floats, layer: str = "linear") -> PrivateTrainer:
    return PrivateTrainer(RECIPE, RECIPE.build({"layer": layer}), TrainingSet(x, None))


def plan(**changes: float) -> StepPlan:
    values: dict[str, Any] = {
        "sampling_rate": 1.0, "noise_multiplier": TINY_NOISE, "clip_norm_l2": 1.0, "steps": 1,
    }  # fmt: skip
    return StepPlan(**{**values, **changes})


def spec(**changes: Any) -> TrainingSpec:
    return TrainingSpec(**{"batch_size": 10, "learning_rate": 1.0, **changes})


def model(n: int = WIDTH + 1) -> Floats:
    return np.linspace(-1, 1, n).astype(np.float32)


def gradients_by_hand(x: Floats, vector: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Gradient of (w·x + b − Σx)² in (w, b), one row per example, float64."""
    w, b = vector[:WIDTH].astype(np.float64), float(vector[WIDTH])
    wide = x.astype(np.float64)
    error = 2 * (wide @ w + b - wide.sum(axis=1))
    return np.column_stack((error[:, None] * wide, error))


def clipped_sum(gradients: np.ndarray[Any, np.dtype[np.float64]], clip: float) -> np.ndarray[Any, Any]:
    norms = np.linalg.norm(gradients, axis=1)
    factors = np.minimum(1, clip / np.maximum(norms, 1e-30))
    return np.asarray((gradients * factors[:, None]).sum(axis=0))


@pytest.mark.parametrize("clip", [0.01, 1.0, 5.0, 1e6])
def test_each_examples_gradient_is_clipped_over_all_parameters_and_summed(clip: float) -> None:
    x = examples(8)

    delta = trainer(x).train(model(), spec(), plan(clip_norm_l2=clip, noise_multiplier=TINY_NOISE / clip))

    expected = -clipped_sum(gradients_by_hand(x, model()), clip) / 10
    assert delta == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_example_moves_the_model_by_at_most_the_clip_over_the_denominator() -> None:
    x = 1000 * examples(1)

    delta = trainer(x).train(model(), spec(batch_size=4), plan(clip_norm_l2=0.5))

    norm = float(np.linalg.norm(delta.astype(np.float64)))
    assert 0.999 * 0.5 / 4 < norm <= 0.5 / 4 * (1 + 1e-6)


def test_the_denominator_is_the_jobs_batch_size_whatever_was_drawn() -> None:
    x = examples(8)

    once = trainer(x).train(model(), spec(batch_size=1), plan())
    tenth = trainer(x).train(model(), spec(batch_size=10), plan())

    assert once == pytest.approx(10 * tenth, rel=1e-4, abs=1e-6)


def test_a_batch_taken_in_parts_has_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    x = examples(23)
    whole = trainer(x).train(model(), spec(), plan())

    monkeypatch.setattr("hedgerow.edge_agent.trainer.dpsgd._CHUNK_VALUES", 5 * (WIDTH + 1))
    parts = trainer(x).train(model(), spec(), plan())

    assert parts == pytest.approx(whole, rel=1e-5, abs=1e-7)


def test_a_convolution_gives_the_gradients_that_autograd_gives_one_by_one() -> None:
    x = examples(5)
    subject = trainer(x, "convolution")
    start = model(subject.flat.size)
    module = RECIPE.build({"layer": "convolution"})
    torch.nn.utils.vector_to_parameters(torch.from_numpy(start), module.parameters())
    total = np.zeros(subject.flat.size)
    for one in torch.from_numpy(x):
        found = torch.autograd.grad(RECIPE.loss(module, one[None], None).sum(), list(module.parameters()))
        total += clipped_sum(torch.cat([g.flatten() for g in found]).double().numpy()[None], 1.0)

    delta = subject.train(start, spec(), plan())

    assert delta == pytest.approx(-total / 10, rel=1e-4, abs=1e-6)


def noise_of(**changes: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What one round on examples without gradient gives, times the denominator: 40,000 values of nothing but noise."""
    subject = trainer(np.zeros((5, WIDTH), np.float32), "wide")
    zero = np.zeros(subject.flat.size, np.float32)
    return 10 * subject.train(zero, spec(), plan(**changes)).astype(np.float64)


def assert_spread(drawn: np.ndarray[Any, np.dtype[np.float64]], sigma: float) -> None:
    assert abs(drawn.mean()) < SIX * sigma / math.sqrt(drawn.size)
    assert abs(drawn.var() / sigma**2 - 1) < SIX * math.sqrt(2 / drawn.size)


def test_noise_on_the_sum_has_the_multiplier_times_the_clip_as_its_spread() -> None:
    assert_spread(noise_of(noise_multiplier=1.7, clip_norm_l2=0.4), 1.7 * 0.4)


def test_noise_a_tenth_too_small_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        assert_spread(noise_of(noise_multiplier=1.7 * 0.9, clip_norm_l2=0.4), 1.7 * 0.4)


def test_noise_of_two_steps_and_of_two_parameters_is_independent() -> None:
    first, second = (noise_of(noise_multiplier=1.0, clip_norm_l2=1.0) for _ in range(2))

    bound = SIX / math.sqrt(first.size)
    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert abs(np.corrcoef(first[:30_000:3], first[30_000:])[0, 1]) < SIX / math.sqrt(10_000)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < bound


def test_an_empty_draw_still_takes_its_noisy_step() -> None:
    assert_spread(noise_of(noise_multiplier=2.0, sampling_rate=1e-12), 2.0)


def test_every_step_adds_its_own_noise() -> None:
    assert_spread(noise_of(noise_multiplier=1.0, steps=9, sampling_rate=1e-12), 3.0)


def test_the_same_seeds_give_different_noise() -> None:
    subject = trainer(np.zeros((5, WIDTH), np.float32))
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        results.append(subject.train(model(), spec(), plan(noise_multiplier=1.0)))

    assert not np.array_equal(results[0], results[1])


def test_the_same_seeds_draw_different_examples() -> None:
    subject = trainer(examples(64))
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(subject.train(model(), spec(), plan(sampling_rate=0.5)))

    assert np.abs(results[0] - results[1]).max() > 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_an_example_without_a_finite_gradient_counts_as_zero_and_harms_no_other(bad: float) -> None:
    good = examples(6)
    x = np.concatenate([good[:3], np.full((1, WIDTH), bad, np.float32), good[3:]])

    delta = trainer(x).train(model(), spec(), plan())

    expected = -clipped_sum(gradients_by_hand(good, model()), 1.0) / 10
    assert delta == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_gradients_of_zero_divide_by_nothing() -> None:
    start = np.array([1, 1, 1, 0], np.float32)

    delta = trainer(examples(6)).train(start, spec(), plan())

    assert np.abs(delta).max() < 1e-5


def test_a_huge_but_finite_gradient_is_clipped_not_dropped() -> None:
    x = np.full((1, WIDTH), 1e12, np.float32)

    delta = trainer(x).train(model(), spec(batch_size=1), plan())

    assert float(np.linalg.norm(delta)) == pytest.approx(1.0, rel=1e-4)


def test_several_steps_with_momentum_and_proximal_pull_follow_the_hand_calculation() -> None:
    x, start = examples(8), model()
    mu, rate, beta = 0.3, 0.1, 0.5

    delta = trainer(x).train(
        start,
        spec(learning_rate=rate, momentum=beta, proximal_mu=mu),
        plan(steps=4),
    )

    vector, speed = start.astype(np.float64), np.zeros(WIDTH + 1)
    for _ in range(4):
        gradient = clipped_sum(gradients_by_hand(x, vector.astype(np.float32)), 1.0) / 10 + mu * (
            vector - start
        )
        speed = beta * speed + gradient
        vector = vector - rate * speed
    assert delta == pytest.approx(vector - start, rel=1e-3, abs=1e-5)


def test_adam_starts_anew_in_every_round() -> None:
    subject = trainer(examples(8))
    adam = spec(optimizer="adam", learning_rate=0.01)

    first, second = (subject.train(model(), adam, plan(steps=3)) for _ in range(2))

    assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    assert np.abs(first).max() == pytest.approx(0.03, rel=0.2)


def test_a_recipe_with_batch_statistics_is_declined() -> None:
    with pytest.raises(DeclinedError, match="buffers") as caught:
        trainer(examples(4), "norm")

    assert caught.value.code is Code.UNSUPPORTED


def test_a_model_without_parameters_changes_nothing() -> None:
    subject = trainer(examples(4), "empty")

    assert subject.train(np.zeros(0, np.float32), spec(), plan()).shape == (0,)


def test_batch_sizes_drawn_have_the_rate_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    draw = SystemRandom.poisson_batch

    def counted(self: SystemRandom, n: int, rate: float) -> Any:
        found = draw(self, n, rate)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(SystemRandom, "poisson_batch", counted)
    trainer(examples(100)).train(model(), spec(), plan(sampling_rate=0.2, steps=400))

    assert len(sizes) == 400
    assert abs(np.mean(sizes) - 20) < SIX * math.sqrt(100 * 0.2 * 0.8 / 400)
    assert len(set(sizes)) > 5
