"""What can go wrong in an engine beyond a wrong scenario."""

from __future__ import annotations

from hedgerow.shared.errors import HedgerowError


class EngineError(HedgerowError):
    """Training could not be carried out: workers died again and again, or the engine's runtime is not usable."""
