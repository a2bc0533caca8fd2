"""``python -m hedgerow.edge_agent.trainer.installed``: prints the recipes that this device can train, with code hashes.

A child process asks, because recipes live in a part that the always-on process never imports.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec

import msgspec

from hedgerow.models.recipe import find_recipe, recipe_hash
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.messages import RecipeReport

NEEDED = ("torch", "flwr", "opacus")


def installed_recipes() -> list[RecipeReport]:
    """Return the recipes that can be trained here; none where the ``[train]`` extra is not installed."""
    if any(find_spec(name) is None for name in NEEDED):
        return []
    found = []
    for entry in sorted(entry_points(group="hedgerow.recipes"), key=lambda entry: entry.name):
        try:
            found.append(RecipeReport(entry.name, recipe_hash(find_recipe(entry.name))))
        except (HedgerowError, ImportError, AttributeError) as error:
            logging.getLogger(__name__).warning("recipe %s cannot be used: %s", entry.name, error)
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(installed_recipes()) + b"\n")
