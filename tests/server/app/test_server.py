"""A server that starts again knows from its database whom rounds may ask and who left for good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from tests.support.server_parts import Parts

from hedgerow.server.app.server import Server


def test_a_restarted_server_waits_for_no_device_that_was_revoked_before(parts: Parts, tmp_path: Path) -> None:
    """A round that was drawn before the restart may still name it."""
    for device in ("pump-1", "pump-2"):
        parts.join(device)
    parts.fleet.devices.revoke("pump-2", "stolen")
    config = msgspec.structs.replace(parts.home.read_config(), gateway_port=0, operator_port=0)

    async def look() -> None:
        server = Server(parts.home, config)
        await server.start()
        try:
            assert server.link.gone() == {"pump-2"}
            assert server.link.node_of("pump-1") is not None
            assert server.link.node_of("pump-2") is None
        finally:
            await server.stop()

    asyncio.run(look())
