"""Where the configuration files of the checkout are."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "firmware_configs"
