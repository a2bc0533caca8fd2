"""What devices fetch: TUF metadata and target files, by names that match a strict pattern, with byte ranges.

The device gateway names the device in the scope; a request without one is refused here as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from hedgerow.server.delivery.paths import is_metadata_name, is_target_path

# One range, open or closed: what resuming needs. Lists of ranges would make one request cost many reads.
_RANGE = re.compile(r"bytes=[0-9]{1,12}-[0-9]{0,12}")


def routes(repository: Path) -> list[Route]:
    """Return the routes that serve the TUF repository in ``repository`` to devices."""

    async def metadata(request: Request) -> Response:
        name = request.path_params["name"]
        if not is_metadata_name(name):
            return _missing()
        return _serve(request, repository / "metadata" / name, "application/json")

    async def target(request: Request) -> Response:
        path = request.path_params["path"]
        if not is_target_path(path):
            return _missing()
        return _serve(request, repository / "targets" / path, "application/octet-stream")

    return [
        Route("/v1/device/tuf/metadata/{name}", metadata, methods=["GET"]),
        Route("/v1/device/tuf/targets/{path:path}", target, methods=["GET"]),
    ]


def _serve(request: Request, path: Path, media_type: str) -> Response:
    if not request.scope.get("hedgerow.device"):
        return PlainTextResponse("a device certificate is needed", status_code=403)
    asked = request.headers.get("range")
    if asked is not None and not _RANGE.fullmatch(asked):
        return PlainTextResponse("ask for one range: bytes=FIRST- or bytes=FIRST-LAST", status_code=416)
    if not path.is_file():
        return _missing()
    return FileResponse(path, media_type=media_type, headers={"cache-control": "no-store"})


def _missing() -> Response:
    return PlainTextResponse("not here", status_code=404)
