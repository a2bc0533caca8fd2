"""The commands' way to a running server: its operator listener, with a token from the server's folder or the caller."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from hedgerow.server.app.home import ServerHome
from hedgerow.shared.errors import AuthError, ConfigError, TransportError

TIMEOUT_S = 30.0


class OperatorClient:
    """Calls the fleet API of one server."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT_S
        )
        self._url = url

    @classmethod
    def find(cls, home: Path | None, url: str | None, token: str | None) -> OperatorClient:
        """Return a client for ``--url`` and ``--token``, or for the server whose folder is ``home``.

        Raises ConfigError if neither leads to a server.
        """
        token = token or os.environ.get("HEDGEROW_TOKEN")
        if url is not None:
            if token is None:
                raise ConfigError("with --url, name an operator token: --token or HEDGEROW_TOKEN")
            return cls(url, token)
        folder = ServerHome(home or default_home())
        config, running = folder.read_config(), folder.read_running()
        port = running.operator_port if running is not None else config.operator_port
        return cls(f"http://127.0.0.1:{port}", token or folder.read_operator_token())

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON answer of a read. Raises as ``_ask``."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, body: Any = None) -> Any:
        """Return the JSON answer of an action, None when there is no body. Raises as ``_ask``."""
        return self._ask("POST", path, json=body)

    def news(self) -> Iterator[list[str]]:
        """Yield the topics of news as they happen; first an empty list once the stream stands."""
        try:
            with self._http.stream(
                "GET", "/api/v1/news", timeout=httpx.Timeout(TIMEOUT_S, read=60.0)
            ) as answer:
                _check(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        found = json.loads(line[6:])
                        yield found if isinstance(found, list) else []
        except httpx.HTTPError as error:
            raise TransportError(f"{self._url}: the event stream broke off: {error}") from error

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, f"/api/v1/{path}", **more)
        except httpx.HTTPError as error:
            raise TransportError(
                f"{self._url}: the server does not answer ({error}); is 'hedgerow server run' up?"
            ) from error
        _check(answer)
        return answer.json() if answer.content else None


def default_home() -> Path:
    """Return the server's folder: HEDGEROW_SERVER_HOME, else ``~/.hedgerow/server``."""
    return Path(os.environ.get("HEDGEROW_SERVER_HOME", "~/.hedgerow/server")).expanduser()


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"HTTP {answer.status_code}"
    raise AuthError(detail) if answer.status_code in (401, 403) else ConfigError(detail)
