"""One suite for every runtime: both engines, float and int8."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bundles import FILES, artefacts
from tests.support.nets import ConvAutoencoder, SmallCnn, seeded, torch_answers
from torch import nn

from hedgerow.edge_agent.inference.runtime import Runtime, open_runtime
from hedgerow.shared.errors import ContentError, UnsupportedError

NETS: dict[str, tuple[type[nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "autoencoder": (ConvAutoencoder, (60, 8), (60, 8)),
    "classifier": (SmallCnn, (8, 8, 1), (10,)),
}
TOLERANCE = {"float32": 1e-5, "int8": 0.2}


class Case:
    """One artefact on disk with what it should answer."""

    def __init__(self, folder: Path, net: str, kind: str, precision: str, data: bytes) -> None:
        self.kind, self.precision = kind, precision
        self.path = folder / f"{net}-{FILES[kind, precision]}"
        self.path.write_bytes(data)
        module, self.shape, self.output = NETS[net]
        self.x = np.random.default_rng(1).normal(size=(16, *self.shape)).astype(np.float32)
        self.expected = torch_answers(seeded(module), self.x)

    def open(self, path: Path | None = None, **changes: Any) -> Runtime:
        options = {"input_shape": self.shape, "output_shape": self.output, **changes}
        return open_runtime(self.kind, path or self.path, self.precision, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Case]:
    folder = tmp_path_factory.mktemp("artefacts")
    made = {}
    for net, (module, shape, _) in NETS.items():
        calibration = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
        for (kind, precision), data in artefacts(seeded(module), shape, calibration).items():
            made[net, kind, precision] = Case(folder, net, kind, precision, data)
    return made


@pytest.fixture(params=[(net, *kind) for net in NETS for kind in FILES], ids="-".join)
def case(request: pytest.FixtureRequest, cases: dict[tuple[str, str, str], Case]) -> Case:
    return cases[request.param]


def test_it_answers_as_the_model_it_was_made_from(case: Case) -> None:
    runtime = case.open()

    for x, expected in zip(case.x, case.expected, strict=True):
        answer = runtime.infer(x[None])
        assert answer.dtype == np.float32
        assert answer.shape == (1, *case.output)
        np.testing.assert_allclose(
            answer[0], expected, atol=TOLERANCE[case.precision] * np.abs(case.expected).max()
        )


def test_it_says_what_it_is_and_what_it_runs_on(case: Case) -> None:
    runtime = case.open()

    assert (runtime.name, runtime.precision) == (case.kind, case.precision)
    assert runtime.provider == runtime.wanted_provider
    assert "CPU" in runtime.provider


def test_the_same_input_gives_the_same_answer_and_leaves_the_input_alone(case: Case) -> None:
    runtime = case.open()
    x = case.x[:1].copy()
    first = runtime.infer(x).copy()
    runtime.infer(case.x[1:2])

    np.testing.assert_array_equal(runtime.infer(x), first)
    np.testing.assert_array_equal(x, case.x[:1])


def test_answers_reuse_one_buffer(case: Case) -> None:
    runtime = case.open()
    first = runtime.infer(case.x[:1])
    second = runtime.infer(case.x[1:2])

    assert first.ctypes.data == second.ctypes.data


def test_an_input_that_is_not_contiguous_is_read_right(case: Case) -> None:
    runtime = case.open()
    expected = runtime.infer(case.x[:1]).copy()
    strided = np.zeros((1, *case.shape[:-1], 2 * case.shape[-1]), np.float32)[..., ::2]
    strided[...] = case.x[:1]

    np.testing.assert_array_equal(runtime.infer(strided), expected)


@pytest.mark.parametrize("change", ["batch", "axis", "flat"])
def test_an_input_of_another_shape_is_refused_and_the_next_is_answered(case: Case, change: str) -> None:
    runtime = case.open()
    expected = runtime.infer(case.x[:1]).copy()
    wrong = {"batch": case.x[:2], "axis": case.x[0], "flat": case.x[:1].reshape(1, -1)}[change]

    with pytest.raises(ContentError, match="this model takes"):
        runtime.infer(wrong)
    np.testing.assert_array_equal(runtime.infer(case.x[:1]), expected)


@pytest.mark.parametrize("which", ["input_shape", "output_shape"])
def test_a_model_of_other_shapes_than_promised_is_refused(case: Case, which: str) -> None:
    with pytest.raises(ContentError, match="expected float32"):
        case.open(None, **{which: (3, 5)})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(case: Case, tmp_path: Path, share: float) -> None:
    data = case.path.read_bytes()
    short = tmp_path / case.path.name
    short.write_bytes(data[: int(share * len(data))])

    with pytest.raises(ContentError, match=r"refuses|inputs|expected float32"):
        case.open(short)


def test_garbage_is_refused(case: Case, tmp_path: Path) -> None:
    garbage = tmp_path / case.path.name
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))

    with pytest.raises(ContentError, match="refuses it"):
        case.open(garbage)


def test_a_missing_file_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="no such model file"):
        case.open(tmp_path / "nothing.bin")


def test_the_other_engines_file_is_refused(case: Case, cases: dict[tuple[str, str, str], Case]) -> None:
    other = "litert" if case.kind == "onnxruntime" else "onnxruntime"
    path = cases["classifier", other, "float32"].path

    with pytest.raises(ContentError, match="refuses it"):
        case.open(path)


def test_a_closed_runtime_refuses_and_closing_twice_is_harmless(case: Case) -> None:
    runtime = case.open()
    held = runtime.infer(case.x[:1])
    runtime.close()
    runtime.close()

    with pytest.raises(ContentError, match="closed"):
        runtime.infer(case.x[:1])
    assert held.shape == (1, *case.output)


def test_the_file_may_go_once_it_is_open(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.path.name
    path.write_bytes(case.path.read_bytes())
    runtime = case.open(path)
    expected = runtime.infer(case.x[:1]).copy()
    path.unlink()

    np.testing.assert_array_equal(runtime.infer(case.x[:1]), expected)


def test_runtimes_of_one_file_in_several_threads_do_not_disturb_each_other(case: Case) -> None:
    alone = case.open()
    expected = [alone.infer(x[None]).copy() for x in case.x]
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(offset: int) -> None:
        runtime = case.open()
        start.wait()
        for step in range(150):
            n = (step + offset) % len(case.x)
            if not np.array_equal(runtime.infer(case.x[n : n + 1]), expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def rss_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Private_Dirty in smaps_rollup")


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_two_hundred_swaps_do_not_grow_memory(case: Case) -> None:
    def swap(times: int) -> None:
        for _ in range(times):
            runtime = case.open()
            runtime.infer(case.x[:1])
            runtime.close()

    swap(40)
    gc.collect()
    before = rss_bytes()
    swap(200)
    gc.collect()

    # one leaked model would be at least 20 KiB a swap: 4 MB in all; measured growth is below 0.3 MB
    assert rss_bytes() - before < 2 * 1024 * 1024


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="there are onnxruntime and litert"):
        open_runtime("tensorrt", tmp_path, "int8", (1,), (1,))  # type: ignore[arg-type]
