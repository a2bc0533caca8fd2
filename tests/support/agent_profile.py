"""A small device for tests of the agent: three channels around 0, windows of eight rows, digit images."""

from __future__ import annotations

from typing import Literal

from hedgerow.shared.profile import Channel, DeviceProfile, WindowSpec
from hedgerow.shared.specs import TensorSpec

CHANNELS = ("a", "b", "c")
ROWS = 8
WINDOW = TensorSpec("window", "float32", (ROWS, len(CHANNELS)), "window")
IMAGE = TensorSpec("digit", "uint8", (8, 8, 1), "image")


def profile(
    runtimes: tuple[Literal["onnxruntime", "litert"], ...] = ("onnxruntime", "litert"),
    precision: Literal["int8", "float32"] = "int8",
) -> DeviceProfile:
    """Return a device with three channels around 0, windows of ``ROWS`` rows, and digit images."""
    channels = tuple(Channel(name, "1", -100.0, 100.0, 0.0, 1.0) for name in CHANNELS)
    return DeviceProfile(
        "test-device",
        1,
        channel=channels,
        window=WindowSpec(length=ROWS),
        tensor=(IMAGE,),
        runtimes=runtimes,
        precision=precision,
    )
