"""What can go wrong between a person, a packager and the registry."""

from __future__ import annotations

from hedgerow.shared.errors import ConfigError, HedgerowError


class ModelNotFoundError(ConfigError):
    """The model, version or alias that was named does not exist; the message says which do."""


class RegistryConflictError(HedgerowError):
    """Another change came first: a version is taken, or an alias points elsewhere than expected."""
