"""Small networks like those of the recipes, and the engines' answers for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.models.export.tflite import convert

Floats = npt.NDArray[np.float32]


class ConvAutoencoder(nn.Module):
    """A convolutional autoencoder over windows ``(rows, channels)``, rows divisible by four."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, 16, (7, 1), stride=(2, 1), padding=(3, 0)),
            nn.ReLU(),
            nn.Conv2d(16, 8, (7, 1), stride=(2, 1), padding=(3, 0)),
            nn.ReLU(),
            nn.Upsample(scale_factor=(2, 1)),
            nn.Conv2d(8, 16, (7, 1), padding=(3, 0)),
            nn.ReLU(),
            nn.Upsample(scale_factor=(2, 1)),
            nn.Conv2d(16, channels, (7, 1), padding=(3, 0)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        image = x.permute(0, 2, 1).unsqueeze(3)
        result: torch.Tensor = self.inner(image).squeeze(3).permute(0, 2, 1)
        return result


class SmallCnn(nn.Module):
    """A classifier of ``(8, 8, 1)`` images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        result: torch.Tensor = self.inner(x.permute(0, 3, 1, 2))
        return result


def seeded(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return a network with the values of ``seed``."""
    torch.manual_seed(seed)
    return kind().eval()


def torch_answers(module: nn.Module, x: Floats) -> Floats:
    """Return the module's outputs."""
    with torch.inference_mode():
        result: Floats = module.eval()(torch.from_numpy(x)).numpy()
    return result


def to_tflite(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return a module as float TFLite."""
    return convert(fold(export_onnx(module, shape, batch=1)))


def interpreter(model: bytes) -> Any:
    """Return a LiteRT interpreter, ready."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=model, num_threads=1)
    made.allocate_tensors()
    return made


def litert_answers(model: bytes, x: Floats) -> Floats:
    """Return a TFLite model's outputs, sample by sample, by the engine's plain interface."""
    engine = interpreter(model)
    source, result = engine.get_input_details()[0]["index"], engine.get_output_details()[0]["index"]
    outputs = []
    for n in range(len(x)):
        engine.set_tensor(source, x[n : n + 1])
        engine.invoke()
        outputs.append(engine.get_tensor(result))
    return np.concatenate(outputs)


def onnx_answers(model: bytes, x: Floats) -> Floats:
    """Return an ONNX model's outputs, sample by sample, by the engine's plain interface."""
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": x[n : n + 1]})[0] for n in range(len(x))])


def operators(model: bytes) -> list[str]:
    """Return the names of a TFLite file's operators as written, in order."""
    from ai_edge_litert import schema_py_generated as schema

    root = schema.ModelT.InitFromPackedBuf(model, 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return [names[root.operatorCodes[op.opcodeIndex].builtinCode] for op in root.subgraphs[0].operators]
