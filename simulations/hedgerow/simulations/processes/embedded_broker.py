"""The embedded broker as a process: amqtt on one loopback port, MQTT 3.1.1 only, without persistence."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal

from hedgerow.shared.errors import UnsupportedError


async def serve(port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises UnsupportedError if amqtt is not installed."""
    try:
        from amqtt.broker import Broker
    except ModuleNotFoundError as error:
        raise UnsupportedError("the embedded broker needs: pip install 'hedgerow[demo]'") from error
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 200}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(config)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


def main() -> None:
    """Run the broker from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
