"""The model registry: immutable, content-addressed versions with their lineage, and the aliases that name them."""

from hedgerow.server.registry.errors import ModelNotFoundError, RegistryConflictError
from hedgerow.server.registry.service import OpenedBundle, Registry
from hedgerow.server.registry.values import ModelSummary, ModelVersion

__all__ = [
    "ModelNotFoundError",
    "ModelSummary",
    "ModelVersion",
    "OpenedBundle",
    "Registry",
    "RegistryConflictError",
]
