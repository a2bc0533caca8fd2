"""Noise and draws of both streams: distribution, independence of seeds and labels, forks.

The statistical tests of the system's stream draw fresh noise each time. Each bound is six standard errors (or the same
probability by another law): a sound generator fails one of them about once in five hundred million runs.
"""

from __future__ import annotations

import math
import os
import random

import numpy as np
import pytest
import torch

from hedgerow.shared.privacy.noise import BLOCK, RandomStream, SeededStream, SystemRandom

SIX = 6.0
N = 400_000


def seeded() -> SeededStream:
    return SeededStream.of(20_261_126, "test")


@pytest.fixture(params=[SystemRandom, seeded], ids=["system", "seeded"])
def stream(request: pytest.FixtureRequest) -> RandomStream:
    made: RandomStream = request.param()
    return made


@pytest.mark.parametrize("sigma", [0.01, 1.0, 37.5])
def test_noise_has_the_mean_and_the_spread_asked_for(stream: RandomStream, sigma: float) -> None:
    drawn = stream.gaussian(N, sigma)

    assert abs(drawn.mean()) < SIX * sigma / math.sqrt(N)
    assert abs(drawn.var() / sigma**2 - 1) < SIX * math.sqrt(2 / N)


def test_a_wrong_spread_by_two_percent_would_be_noticed() -> None:
    drawn = SystemRandom().gaussian(N, 1.02)

    assert abs(drawn.var() - 1) > SIX * math.sqrt(2 / N)


def test_noise_has_the_shape_of_a_gaussian(stream: RandomStream) -> None:
    drawn = stream.gaussian(N, 1.0)

    for bound in (0.1, 0.5, 1.0, 2.0, 3.0, 4.0):
        share = math.erf(bound / math.sqrt(2))
        seen = float((np.abs(drawn) < bound).mean())
        assert abs(seen - share) < SIX * math.sqrt(share * (1 - share) / N)
    skew, kurtosis = float((drawn**3).mean()), float((drawn**4).mean())
    assert abs(skew) < SIX * math.sqrt(15 / N)
    assert abs(kurtosis - 3) < SIX * math.sqrt(96 / N)


def test_neighbouring_draws_and_both_halves_of_a_block_are_uncorrelated(stream: RandomStream) -> None:
    drawn = stream.gaussian(N, 1.0)

    for first, second in ((drawn[:-1], drawn[1:]), (drawn[: N // 2], drawn[N // 2 :])):
        assert abs(float((first * second).mean())) < SIX / math.sqrt(len(first))
        squares = float(((first**2 - 1) * (second**2 - 1)).mean())
        assert abs(squares) < SIX * 2 / math.sqrt(len(first))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 262_143, 262_144, 262_145, 524_289])
def test_any_count_is_filled_and_finite(count: int) -> None:
    drawn = SystemRandom().gaussian(count, 1.0)

    assert drawn.shape == (count,)
    assert drawn.dtype == np.float64
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn)) == count


def test_even_the_smallest_and_largest_words_give_finite_noise() -> None:
    class Extreme(SystemRandom):
        def __init__(self, word: int) -> None:
            super().__init__()
            self.word = word

        def words(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
            return np.full(count, self.word, np.uint64)

    for word in (0, 2**64 - 1):
        drawn = Extreme(word).gaussian(4, 1.0)
        assert np.isfinite(drawn).all()
        assert np.abs(drawn).max() < 9


def test_seeds_of_numpy_torch_and_python_reach_neither_noise_nor_draws() -> None:
    def draw() -> tuple[bytes, bytes]:
        np.random.seed(1)
        torch.manual_seed(1)
        random.seed(1)
        source = SystemRandom()
        return source.gaussian(64, 1.0).tobytes(), source.poisson_batch(512, 0.5).tobytes()

    first, second = draw(), draw()

    assert first[0] != second[0]
    assert first[1] != second[1]


def test_drawing_leaves_the_generators_of_others_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.random()
    torch.manual_seed(5)
    np.random.seed(5)

    SystemRandom().gaussian(100, 1.0)

    assert (torch.rand(1), np.random.random()) == expected


def test_a_fork_does_not_repeat_its_parents_noise() -> None:
    source = SystemRandom()
    source.words(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, source.words(4).tobytes())
        os._exit(0)
    os.close(write)
    theirs = os.read(read, 32)
    os.close(read)
    os.waitpid(child, 0)

    assert len(theirs) == 32
    assert theirs != source.words(4).tobytes()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_each_example_is_drawn_with_the_rate_and_on_its_own(stream: RandomStream, rate: float) -> None:
    source, n, steps = stream, 200, 4000
    hits = np.zeros((steps, n), bool)
    for step in range(steps):
        hits[step, source.poisson_batch(n, rate)] = True

    sizes = hits.sum(axis=1)
    assert abs(sizes.mean() - n * rate) < SIX * math.sqrt(n * rate * (1 - rate) / steps)
    expected = n * rate * (1 - rate)
    assert abs(sizes.var() / expected - 1) < SIX * math.sqrt((2 + 1 / expected) / steps)
    each = hits.mean(axis=0)
    assert np.abs(each - rate).max() < 7 * math.sqrt(rate * (1 - rate) / steps) + 1e-9
    assert abs(np.corrcoef(hits[:-1].ravel(), hits[1:].ravel())[0, 1]) < SIX / math.sqrt(n * steps)


def test_rate_one_draws_everyone_and_no_examples_draw_nobody(stream: RandomStream) -> None:
    source = stream

    assert source.poisson_batch(7, 1.0).tolist() == list(range(7))
    assert source.poisson_batch(0, 0.5).tolist() == []


def test_a_tiny_rate_mostly_draws_nobody() -> None:
    assert sum(len(SystemRandom().poisson_batch(10, 1e-12)) for _ in range(100)) == 0


def test_a_seed_and_its_labels_repeat_the_same_stream_everywhere() -> None:
    first, second = (SeededStream.of(7, "noise", 3, "device-1") for _ in range(2))

    assert first.words(9).tolist() == second.words(9).tolist()
    assert first.gaussian(5, 2.0).tolist() == second.gaussian(5, 2.0).tolist()
    assert first.poisson_batch(100, 0.3).tolist() == second.poisson_batch(100, 0.3).tolist()


def test_the_stream_of_a_seed_is_pinned_so_that_recorded_simulations_can_be_repeated() -> None:
    """HKDF-SHA256 and AES-256-CTR by hmac, hashlib and the cipher itself, and the words that came out once."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    material = b"i\x00\x00\x00\x017" + b"s\x00\x00\x00\x05noise" + b"i\x00\x00\x00\x01" + b"3"
    extracted = hmac.digest(bytes(32), material, hashlib.sha256)
    key = hmac.digest(extracted, b"hedgerow-simulated-stream-1\x01", hashlib.sha256)
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16))
    expected = [int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")]

    assert SeededStream.of(7, "noise", 3).words(2).tolist() == expected


@pytest.mark.parametrize(
    "labels",
    [(12, 3), (1, 23), ("1", "23"), (1, "23"), ("12", "3"), (123,), ("123",), (), (-1, 23), ("", 123)],
)
def test_no_two_sets_of_labels_share_a_stream(labels: tuple[int | str, ...]) -> None:
    others: list[tuple[int | str, ...]] = [
        (12, 3), (1, 23), ("1", "23"), (1, "23"), ("12", "3"), (123,), ("123",), (), (-1, 23), ("", 123)
    ]  # fmt: skip
    mine = SeededStream.of(5, *labels).words(4).tolist()

    assert sum(SeededStream.of(5, *other).words(4).tolist() == mine for other in others) == 1
    assert SeededStream.of(6, *labels).words(4).tolist() != mine


def test_streams_of_neighbouring_labels_are_uncorrelated() -> None:
    drawn = np.stack([SeededStream.of(5, "noise", n).gaussian(20_000, 1.0) for n in range(12)])

    correlation = drawn @ drawn.T / drawn.shape[1]
    aside = correlation[~np.eye(12, dtype=bool)]
    assert np.abs(aside).max() < SIX / math.sqrt(drawn.shape[1])
    assert np.abs(np.diag(correlation) - 1).max() < SIX * math.sqrt(2 / drawn.shape[1])


def test_noise_asked_for_block_by_block_is_the_noise_asked_for_at_once() -> None:
    n, whole, parts = 2 * BLOCK + 7, SeededStream.of(1), SeededStream.of(1)

    apart = [parts.gaussian(min(BLOCK, n - at), 3.0) for at in range(0, n, BLOCK)]

    assert np.array_equal(whole.gaussian(n, 3.0), np.concatenate(apart))


def test_a_stream_goes_on_where_it_was() -> None:
    stream = SeededStream.of(1)

    assert stream.words(3).tolist() + stream.words(2).tolist() == SeededStream.of(1).words(5).tolist()


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SeededStream(key)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**200, -5])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert SeededStream.of(seed).words(1).shape == (1,)
