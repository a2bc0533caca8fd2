"""What the device gateway serves of the link: the batched round routes, the models, Flower's fleet routes."""

from __future__ import annotations

from hedgerow.server.flower.fleet_app import fleet_app
from hedgerow.server.flower.link import FlowerLink
from hedgerow.server.flower.rounds_api import RoundsApi
from hedgerow.server.gateway.paths import Mount
from hedgerow.shared import fleetwire, limits


def device_mounts(link: FlowerLink) -> list[Mount]:
    """Return the gateway's mounts for ``link``; an upload's real bound is what its instruction allows."""
    rounds = RoundsApi(link)
    return [
        Mount("/v1/device/round/", rounds, max_body_bytes=limits.MAX_UPDATE_BYTES),
        Mount(fleetwire.MODELS_PATH, rounds, max_body_bytes=0),
        Mount("/v1/fleet/", fleet_app(link)),
    ]
