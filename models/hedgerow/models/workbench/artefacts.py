"""From a module to the artefacts of a bundle: float and int8 ONNX, float and int8 TFLite."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.models.export.onnx_export import check_parity, export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.models.export.tflite import convert
from hedgerow.models.gate.engines import open_one, run_all
from hedgerow.models.quantise import quantise_onnx, quantise_tflite
from hedgerow.models.workbench.modules import Work
from hedgerow.shared.bundle import Artefact, Precision, Runtime, sha256_hex
from hedgerow.shared.errors import UnsupportedError

_PARITY_SAMPLES = 32


@dataclass(frozen=True)
class Made:
    """One artefact with its bytes."""

    file: str
    runtime: Runtime
    precision: Precision
    data: bytes

    @property
    def entry(self) -> Artefact:
        """The manifest's entry for it."""
        return Artefact(self.file, self.runtime, self.precision, sha256_hex(self.data), len(self.data))


def make_artefacts(work: Work) -> tuple[list[Made], tuple[str, ...]]:
    """Return the artefacts of the module as it stands, and notes on those that could not be made.

    Float artefacts are run against the module before anything is quantised. A model that TFLite cannot express
    becomes ONNX only, with a note. Raises UnsupportedError if torch cannot write ONNX, ContentError if an export
    differs from the module.
    """
    shape = work.public.x.shape[1:]
    calibration = work.public.x[work.public.calibration]
    onnx = export_onnx(work.module, shape)
    made = [Made("model.float32.onnx", "onnxruntime", "float32", onnx)]
    notes: tuple[str, ...] = ()
    try:
        tflite = convert(fold(export_onnx(work.module, shape, batch=1)))
        made.append(Made("model.float32.tflite", "litert", "float32", tflite))
    except UnsupportedError as error:
        tflite, notes = b"", (str(error),)
    _check(work, made)
    made.append(Made("model.int8.onnx", "onnxruntime", "int8", quantise_onnx(onnx, calibration)))
    if tflite:
        made.append(Made("model.int8.tflite", "litert", "int8", quantise_tflite(tflite, calibration)))
    return made, notes


def _check(work: Work, made: list[Made]) -> None:
    x = work.public.x[:_PARITY_SAMPLES]
    reference = work.predict(x)
    for item in made:
        check_parity(reference, run_all(open_one(item.runtime, item.data), x), item.file)
