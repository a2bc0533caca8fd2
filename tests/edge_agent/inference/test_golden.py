from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from tests.support.bundles import write_bundle

from hedgerow.edge_agent.inference.golden import Floats, check_golden
from hedgerow.shared.bundle import Manifest
from hedgerow.shared.errors import ContentError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_bundle(tmp_path_factory.mktemp("g") / "b", kinds=[("onnxruntime", "float32")], tolerance=0.1)


def recorded(manifest: Manifest, offset: float = 0.0) -> Callable[[Floats], Floats]:
    answers = {
        g.input: np.frombuffer(g.output, "<f4").reshape(1, *manifest.output.shape) for g in manifest.golden
    }
    return lambda x: answers[x.astype("<f4").tobytes()] + np.float32(offset)


def test_answers_within_the_tolerance_pass_and_say_how_close(manifest: Manifest) -> None:
    assert check_golden(manifest, "int8", recorded(manifest)) == 0.0
    assert check_golden(manifest, "int8", recorded(manifest, 0.05)) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("offset", [0.11, -0.11, np.nan, np.inf])
def test_answers_beyond_it_fail(manifest: Manifest, offset: float) -> None:
    with pytest.raises(ContentError, match="golden sample 0: the answer is off by"):
        check_golden(manifest, "int8", recorded(manifest, offset))


def changed(manifest: Manifest, **changes: object) -> Manifest:
    first = msgspec.structs.replace(manifest.golden[0], **changes)
    return msgspec.structs.replace(manifest, golden=(first, *manifest.golden[1:]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": b"\0" * 8}, "input has 8 bytes"),
        ({"output": b"\0" * 7}, "output has 7 bytes"),
        ({"input": np.full(24, np.nan, "<f4").tobytes()}, "non-finite"),
        ({"tolerance": {"float32": 0.1}}, "no tolerance for int8"),
        ({"tolerance": {"int8": 0.0}}, "no tolerance for int8"),
        ({"tolerance": {"int8": float("nan")}}, "no tolerance for int8"),
    ],
)
def test_a_malformed_golden_sample_is_refused(
    manifest: Manifest, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ContentError, match=words):
        check_golden(changed(manifest, **changes), "int8", recorded(manifest))


def test_a_bundle_without_golden_samples_cannot_be_checked(manifest: Manifest) -> None:
    with pytest.raises(ContentError, match="no golden sample"):
        check_golden(msgspec.structs.replace(manifest, golden=()), "int8", recorded(manifest))
