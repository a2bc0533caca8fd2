"""Which engine and provider really run, and what an agent process loads for it."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.agent_profile import WINDOW
from tests.support.bundles import normal_windows, write_bundle

from hedgerow.edge_agent.inference import litert_runtime
from hedgerow.edge_agent.inference.litert_runtime import interpreter_class
from hedgerow.edge_agent.inference.probe_model import PROBE
from hedgerow.edge_agent.inference.runtime import open_runtime
from hedgerow.models.export.tflite.builder import Builder
from hedgerow.shared.errors import UnsupportedError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    write_bundle(folder)
    return folder


def test_a_provider_that_is_not_there_is_reported_not_believed(bundle: Path) -> None:
    runtime = open_runtime(
        "onnxruntime",
        bundle / "model.int8.onnx",
        "int8",
        WINDOW.shape,
        WINDOW.shape,
        "CUDAExecutionProvider",
    )

    assert runtime.wanted_provider == "CUDAExecutionProvider"
    assert runtime.provider == "CPUExecutionProvider"
    assert runtime.infer(normal_windows(1)).shape == (1, *WINDOW.shape)


def test_the_probe_is_the_model_it_says_it_is() -> None:
    builder = Builder()
    source, result = builder.tensor("x", (1, 1)), builder.tensor("y", (1, 1))
    builder.operator("RELU", [source], result)

    assert builder.finish(source, result) == PROBE


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    interpreter_class.cache_clear()
    yield
    interpreter_class.cache_clear()


def engine_module(monkeypatch: pytest.MonkeyPatch, name: str, interpreter: object) -> None:
    parent, child = types.ModuleType(name.split(".", maxsplit=1)[0]), types.ModuleType(name)
    child.Interpreter = interpreter  # type: ignore[attr-defined]
    parent.interpreter = child  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name.split(".", maxsplit=1)[0], parent)
    monkeypatch.setitem(sys.modules, name, child)


class Breaks:
    """As tflite-runtime does under a numpy that it was not built for: it imports, then fails to construct."""

    def __init__(self, **_: object) -> None:
        raise SystemError("CreateWrapperFromFile returned a result with an exception set")


class Works:
    def __init__(self, **_: object) -> None:
        pass

    def allocate_tensors(self) -> None:
        pass


def test_an_engine_that_imports_but_cannot_be_built_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, fresh_probe: None
) -> None:
    engine_module(monkeypatch, "ai_edge_litert.interpreter", Breaks)
    engine_module(monkeypatch, "tflite_runtime.interpreter", Works)

    assert interpreter_class() is Works


def test_no_usable_engine_says_why_and_which_extra_helps(
    monkeypatch: pytest.MonkeyPatch, fresh_probe: None
) -> None:
    engine_module(monkeypatch, "ai_edge_litert.interpreter", Breaks)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)

    with pytest.raises(
        UnsupportedError, match=r"hedgerow\[tflite\].*CreateWrapperFromFile.*ModuleNotFoundError"
    ):
        interpreter_class()


def test_an_engine_that_moves_its_memory_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert.interpreter import Interpreter

    class Moves(Interpreter):  # type: ignore[misc]
        """Hands out a copy of a tensor each time, as if it lay elsewhere after each run."""

        def tensor(self, tensor_index: int) -> object:
            real = super().tensor(tensor_index)
            kept.append(real().copy())
            return lambda: kept[-1]

    kept: list[object] = []
    monkeypatch.setattr(litert_runtime, "interpreter_class", lambda: Moves)

    with pytest.raises(UnsupportedError, match="moves its tensors"):
        open_runtime("litert", bundle / "model.int8.tflite", "int8", WINDOW.shape, WINDOW.shape)


AGENT = """
import sys
from pathlib import Path
import numpy as np
from hedgerow.edge_agent.inference.engine import Engine
from tests.support.agent_profile import profile
engine = Engine(profile(("{runtime}",)), Path({state!r}), lambda spec, limit: np.zeros((0, 8, 3), np.float32))
engine.load(Path({bundle!r}))
engine.predict("window", np.zeros((8, 3), np.float32))
assert engine.reports()[0].runtime == "{runtime}"
heavy = {{"torch", "onnx", "flwr", "fastapi", "tuf", "zeroconf", "typer", "rich", "ai_edge_quantizer", "sklearn"}}
engines = {{"onnxruntime", "ai_edge_litert", "tflite_runtime"}}
loaded = {{name.split(".")[0] for name in sys.modules}}
print(sorted(loaded & heavy), sorted(loaded & engines))
"""


@pytest.mark.parametrize(
    ("runtime", "module"), [("onnxruntime", "onnxruntime"), ("litert", "ai_edge_litert")]
)
def test_an_agent_process_loads_one_engine_and_nothing_heavy(
    bundle: Path, tmp_path: Path, runtime: str, module: str
) -> None:
    code = AGENT.format(runtime=runtime, state=str(tmp_path), bundle=str(bundle))
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[] ['{module}']"
