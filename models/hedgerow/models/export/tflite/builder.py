"""Writes the TFLite flatbuffer: tensors, constants, operators, one signature ``serving_default`` from x to y."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

SIGNATURE = "serving_default"
_TYPES = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int32): schema.TensorType.INT32}

# CONCATENATION has the field too, but its kernel refuses it and a delegate ignores it
_FUSING = (
    schema.AddOptionsT,
    schema.Conv2DOptionsT,
    schema.DepthwiseConv2DOptionsT,
    schema.DivOptionsT,
    schema.FullyConnectedOptionsT,
    schema.MulOptionsT,
    schema.Pool2DOptionsT,
    schema.SubOptionsT,
)


class Builder:
    """One subgraph under construction; tensors and operators are named by index."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.description = "hedgerow"
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors = []
        self._graph.operators = []
        self._model.subgraphs = [self._graph]
        self._codes: dict[int, int] = {}
        self._producers: dict[int, Any] = {}

    def tensor(self, name: str, shape: tuple[int, ...]) -> int:
        """Add a float32 activation and return its index."""
        return self._add(name, shape, schema.TensorType.FLOAT32, 0)

    def constant(self, name: str, value: Array) -> int:
        """Add a float32 or int32 constant and return its index."""
        contiguous = np.ascontiguousarray(value)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(contiguous.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return self._add(name, contiguous.shape, _TYPES[contiguous.dtype], len(self._model.buffers) - 1)

    def _add(self, name: str, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = [int(size) for size in shape]
        tensor.type = kind
        tensor.buffer = buffer
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], output: int, options: Any = None) -> None:
        """Add the builtin operator ``kind`` (its schema name); ``options`` is the schema's options object."""
        code = getattr(schema.BuiltinOperator, kind)
        if code not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = code
            entry.deprecatedBuiltinCode = min(code, 127)  # the schema's placeholder for later codes
            entry.version = 1
            self._codes[code] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[code]
        operator.inputs = inputs
        operator.outputs = [output]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self._graph.operators.append(operator)
        self._producers[output] = operator

    def fuse(self, tensor: int, activation: str) -> bool:
        """Let the operator that makes ``tensor`` apply ``activation`` itself; False if it cannot."""
        producer = self._producers.get(tensor)
        options = None if producer is None else producer.builtinOptions
        if (
            not isinstance(options, _FUSING)
            or options.fusedActivationFunction != schema.ActivationFunctionType.NONE
        ):
            return False
        options.fusedActivationFunction = getattr(schema.ActivationFunctionType, activation)
        return True

    def finish(self, input_tensor: int, output_tensor: int) -> bytes:
        """Return the file's bytes; operators, tensors and constants that nothing reads are left out."""
        moved = self._keep_needed(input_tensor, output_tensor)
        self._graph.inputs = [moved[input_tensor]]
        self._graph.outputs = [moved[output_tensor]]
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE
        signature.subgraphIndex = 0
        signature.inputs = [_map("x", moved[input_tensor])]
        signature.outputs = [_map("y", moved[output_tensor])]
        self._model.signatureDefs = [signature]
        packer = flatbuffers.Builder(1 << 16)
        packer.Finish(self._model.Pack(packer), b"TFL3")
        return bytes(packer.Output())

    def _keep_needed(self, input_tensor: int, output_tensor: int) -> dict[int, int]:
        needed, operators = {input_tensor, output_tensor}, []
        for operator in reversed(self._graph.operators):
            if operator.outputs[0] in needed:
                needed.update(operator.inputs)
                operators.append(operator)
        self._graph.operators = operators[::-1]
        kept = sorted(needed)
        moved = {old: new for new, old in enumerate(kept)}
        self._graph.tensors = [self._graph.tensors[old] for old in kept]
        for operator in operators:
            operator.inputs = [moved[old] for old in operator.inputs]
            operator.outputs = [moved[old] for old in operator.outputs]
        buffers = [self._model.buffers[0]]
        for tensor in self._graph.tensors:
            if tensor.buffer:
                buffers.append(self._model.buffers[tensor.buffer])
                tensor.buffer = len(buffers) - 1
        self._model.buffers = buffers
        return moved


def _map(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = tensor
    return entry
