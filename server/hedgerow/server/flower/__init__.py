"""Flower's SuperLink inside the server: link state, object store, fleet routes. Nothing else imports Flower's internals."""

from hedgerow.server.flower.fab import FabInfo, read_fab
from hedgerow.server.flower.link import FlowerLink, LinkConfig
from hedgerow.server.flower.mounts import device_mounts

__all__ = ["FabInfo", "FlowerLink", "LinkConfig", "device_mounts", "read_fab"]
