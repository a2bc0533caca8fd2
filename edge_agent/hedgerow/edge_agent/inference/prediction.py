"""The answer for one sample: what was found, by which model, and why that one answered."""

from __future__ import annotations

from typing import Literal

import msgspec

from hedgerow.shared.messages import ChannelShare

Reason = Literal["champion", "previous", "baseline", "unknown"]


class ClassScore(msgspec.Struct, frozen=True):
    """How likely one class is, in ``[0, 1]``."""

    index: int
    label: str
    probability: float


class Answer(msgspec.Struct, frozen=True):
    """What a model or the baseline finds in one sample. ``classes`` holds every class, likeliest first."""

    score: float | None = None
    threshold: float | None = None
    alarm: bool = False
    attribution: tuple[ChannelShare, ...] = ()
    classes: tuple[ClassScore, ...] = ()


class Source(msgspec.Struct, frozen=True):
    """Which model answers; ``bundle`` is its manifest's SHA-256. Empty for the baseline."""

    model: str = ""
    version: int = 0
    bundle: str = ""
    runtime: str = ""
    precision: str = ""
    provider: str = ""


class Prediction(msgspec.Struct, frozen=True):
    """One answer with its origin.

    ``reason`` says which link of the chain answered; ``detail`` why those before it did not. ``latency_us`` is the
    time from raw sample to answer, at least 1.
    """

    spec: str
    reason: Reason
    source: Source
    answer: Answer
    latency_us: int
    detail: str = ""
