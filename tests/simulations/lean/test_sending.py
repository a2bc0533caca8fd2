"""Updates on their way to the server: falsified, packed and judged as on a fleet."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import fedavg
from hedgerow.server.aggregation.streaming import StreamingSum
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import pack, packed_bytes
from hedgerow.shared.privacy.central import norm_l2 as exact_norm
from hedgerow.simulations.engine.protocol import Attack, Task
from hedgerow.simulations.lean.sending import norm_l2, send

SEED = 5


def update(n: int = 9000, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(2).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
def test_what_arrives_is_what_the_server_makes_of_the_packed_bytes(packing: Packing) -> None:
    sent = send(update(), Task(3, 8), SEED, packing)
    payload = pack(update(), packing, np.random.default_rng((SEED, 8, 3)))
    server = StreamingSum(fedavg(), 9000, packing, None, b"")
    server.add(Update("d", [memoryview(payload)]))
    released = server.release(np.zeros(9000, np.float32)).model
    np.testing.assert_array_equal(sent.values, released)
    assert sent.n_bytes == packed_bytes(9000, packing) == len(payload)
    assert sent.norm_l2 == pytest.approx(np.linalg.norm(update()), rel=1e-5)


def test_float32_is_not_copied_and_no_update_is_changed() -> None:
    given = update()
    before = given.copy()
    assert send(given, Task(0, 1), SEED, "float32").values is given
    for kind in ("sign-flip", "scale", "noise", "nan"):
        send(given, Task(0, 1, attack=Attack(kind, 3.0)), SEED, "int8")
    np.testing.assert_array_equal(given, before)


def test_sign_flip_and_scale_do_what_they_say() -> None:
    flipped = send(update(), Task(0, 1, attack=Attack("sign-flip", 2.0)), SEED, "float32")
    scaled = send(update(), Task(0, 1, attack=Attack("scale", 4.0)), SEED, "float32")
    np.testing.assert_array_equal(flipped.values, -2 * update())
    np.testing.assert_array_equal(scaled.values, 4 * update())
    assert scaled.norm_l2 == pytest.approx(4 * np.linalg.norm(update()), rel=1e-5)


def test_noise_has_the_norm_asked_for_and_nothing_of_the_update_and_repeats_itself() -> None:
    task = Task(4, 2, attack=Attack("noise", 3.0))
    first, again = (send(update(), task, SEED, "float32").values for _ in range(2))
    other = send(update(), Task(5, 2, attack=task.attack), SEED, "float32").values
    assert first is not None
    assert other is not None
    np.testing.assert_array_equal(first, again)
    assert np.linalg.norm(first) == pytest.approx(3 * np.linalg.norm(update()), rel=0.05)
    for unrelated in (update(), other):
        assert abs(np.corrcoef(first, unrelated)[0, 1]) < 0.05


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_rejected_honest_or_not(packing: Packing, value: float) -> None:
    broken = update()
    broken[77] = value
    honest = send(broken, Task(0, 1), SEED, packing)
    attacked = send(update(), Task(0, 1, attack=Attack("nan")), SEED, packing)
    clipped = send(broken, Task(0, 1, clip_norm_l2=1.0), SEED, packing)
    assert [s.rejected for s in (honest, attacked, clipped)] == ["non-finite"] * 3
    assert [s.values for s in (honest, attacked, clipped)] == [None] * 3


@pytest.mark.parametrize("scale", [3e6, 1e12, 1e20])
def test_what_is_too_large_is_rejected_over_norm(scale: float) -> None:
    assert send(update(scale=scale), Task(0, 1), SEED, "float32").rejected == "over-norm"


def test_large_norms_of_many_moderate_values_count() -> None:
    wide = np.full(4_000_000, 1000.0, np.float32)
    assert norm_l2(wide) == pytest.approx(2e6, rel=1e-5)
    assert send(wide, Task(0, 1), SEED, "float32").rejected is None


def test_what_float16_cannot_hold_is_not_sent() -> None:
    sent = send(update(scale=1e5), Task(0, 1), SEED, "float16")
    assert (sent.values, sent.n_bytes, sent.rejected) == (None, 0, "failed-training")


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
@pytest.mark.parametrize("attack", [None, Attack("scale", 100.0), Attack("noise", 50.0)])
def test_no_clipped_update_counts_more_than_its_bound(packing: Packing, attack: Attack | None) -> None:
    for clip in (0.01, 1.0, float(np.linalg.norm(update()))):
        sent = send(update(), Task(0, 1, clip_norm_l2=clip, attack=attack), SEED, packing)
        assert sent.values is not None
        assert exact_norm(sent.values) <= clip
        assert exact_norm(sent.values) > 0.99 * clip


def test_norm_before_clipping_is_reported() -> None:
    sent = send(update(), Task(0, 1, clip_norm_l2=0.1), SEED, "float32")
    assert sent.norm_l2 == pytest.approx(np.linalg.norm(update()), rel=1e-5)


def test_updates_within_the_bound_arrive_as_they_are() -> None:
    sent = send(update(), Task(0, 1, clip_norm_l2=1000.0), SEED, "float32")
    np.testing.assert_array_equal(sent.values, update())


def test_zero_updates_and_empty_models_count() -> None:
    for n in (0, 10):
        zero = np.zeros(n, np.float32)
        sent = send(zero, Task(0, 1, clip_norm_l2=1.0), SEED, "float32")
        assert sent.rejected is None
        np.testing.assert_array_equal(sent.values, zero)
