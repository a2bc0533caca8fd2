"""Where the profiles and jobs that come with Hedgerow lie: beside the source, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

from hedgerow.shared.errors import ConfigError

_HERE = Path(__file__).parent


def configs_folder() -> Path:
    """Return the folder ``firmware_configs``. Raises ConfigError if this installation has none."""
    for folder in (_HERE.parents[2] / "firmware_configs", _HERE / "firmware_configs"):
        if (folder / "profiles").is_dir():
            return folder
    raise ConfigError(
        "this installation has no firmware_configs; install Hedgerow from its wheel or its repository"
    )
