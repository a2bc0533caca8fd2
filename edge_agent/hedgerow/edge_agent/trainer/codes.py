"""Why a device trained nothing: the closed set of short codes that may leave it, and the error that carries one.

With privacy, a code is all that is said; the detail goes to the device's own log.
"""

from __future__ import annotations

from enum import StrEnum

from hedgerow.shared.errors import HedgerowError


class Code(StrEnum):
    """Value of ``TrainReply.error``. Each tells the server one bit, outside ε; the privacy report says so."""

    DELTA = "declined-delta"
    """δ is above 1 / (10 n) here."""
    BUDGET = "declined-budget"
    """The ε asked for is spent, or this exchange was answered before for another model."""
    NO_SAMPLES = "declined-no-samples"
    RECIPE = "declined-recipe"
    """The recipe is not installed, or its code differs."""
    CHANGED = "declined-changed"
    """The job asks for something else than in its first round."""
    UNSUPPORTED = "declined-unsupported"
    MODEL = "failed-model"
    """The global model could not be fetched, or is not what was promised."""
    TRAINING = "failed-training"
    STORAGE = "failed-storage"


class DeclinedError(HedgerowError):
    """This exchange is answered by ``code`` instead of an update; ``detail`` stays on the device."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
