"""An embedded listener: says when it listens, leaves the process alone when it cannot, ends what waits when it stops."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hedgerow.server.serving import EmbeddedServer
from hedgerow.shared.errors import TransportError


class App:
    """Answers at once, or on ``/wait`` when told to; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.told = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        if scope["path"] == "/wait":
            await self.told.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def embedded(app: App, *, host: str = "127.0.0.1", port: int = 0, drains: bool = False) -> EmbeddedServer:
    config = uvicorn.Config(
        app, host=host, port=port, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=20
    )
    return EmbeddedServer(config, app.told.set if drains else None)


def test_it_answers_as_soon_as_it_says_where() -> None:
    async def story() -> None:
        server = embedded(App())
        port = await server.listen("test")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"
        await server.close()

    asyncio.run(story())


@pytest.mark.parametrize("listening", [True, False])
def test_a_taken_address_is_an_error_and_not_the_end_of_the_process(listening: bool) -> None:
    async def story(port: int) -> None:
        with pytest.raises(
            TransportError, match=rf"device gateway: cannot listen on 127.0.0.1:{port}: Address"
        ):
            await embedded(App(), port=port).listen("device gateway")
        await asyncio.sleep(0)  # the loop lives

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen()
        asyncio.run(story(taken.getsockname()[1]))


def test_an_address_that_is_not_here_is_an_error() -> None:
    async def story() -> None:
        with pytest.raises(TransportError, match=r"cannot listen on 192\.0\.2\.1"):
            await embedded(App(), host="192.0.2.1").listen("test")

    asyncio.run(story())


def test_a_port_is_free_again_at_once_after_closing() -> None:
    async def story() -> None:
        server = embedded(App())
        port = await server.listen("test")
        async with httpx.AsyncClient() as client:
            await client.get(f"http://127.0.0.1:{port}/")
            await server.close()
        again = embedded(App(), port=port)
        assert await again.listen("test") == port
        await again.close()

    asyncio.run(story())


def test_closing_ends_what_waits_and_takes_no_further_request_on_the_connection() -> None:
    """A long poll that is answered while its connection still took requests would be asked again, and hold the stop."""

    async def story() -> None:
        app = App()
        server = embedded(app, drains=True)
        port = await server.listen("test")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(request)
        while not app.asked:
            await asyncio.sleep(0.01)

        closing = asyncio.create_task(server.close())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(request)
        rest = await reader.read()
        await closing
        writer.close()

        assert head.startswith(b"HTTP/1.1 200")
        assert rest == b"ok"
        assert app.asked == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_closing_twice_or_before_listening_is_harmless() -> None:
    async def story() -> None:
        server = embedded(App())
        await server.close()
        other = embedded(App())
        await other.listen("test")
        await other.close()
        await other.close()

    asyncio.run(story())
