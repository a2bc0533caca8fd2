"""The choices of an earlier run, taken again: which kernel, how many devices at once. They show in the last bits of a model."""

from __future__ import annotations

from pathlib import Path

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.kernel.choose import read_choice
from hedgerow.simulations.run.results import read_result


def choices_like(path: Path, engine: str) -> dict[str, str]:
    """Return what the engine of the run at ``path`` (its folder, or its ``results.json``) chose.

    Raises ConfigError naming the path: for no result, one of another engine than ``engine``, or choices that cannot be taken.
    """
    found = read_result(path)
    if found.engine != engine:
        raise ConfigError(
            f"--like {path}: that run's engine is {found.engine!r}, this one's {engine!r}, and its choices mean nothing to "
            "another; give the same --engine"
        )
    if not found.choices:
        raise ConfigError(f"--like {path}: engine {engine!r} recorded no choices; leave --like out")
    try:
        read_choice(found.choices["kernel"])
    except (KeyError, ConfigError) as error:
        raise ConfigError(f"--like {path}: choices.kernel: {error}; is it a run of this release?") from error
    return dict(found.choices)
