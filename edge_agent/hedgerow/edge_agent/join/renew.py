"""Renews this device's certificate over a new key: ``python -m hedgerow.edge_agent.join.renew --home HOME``.

The agent starts it as a process of its own and never loads what signing needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hedgerow.edge_agent.config import read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.identity import check_certificate, install_identity, make_key, signing_request
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.shared.errors import HedgerowError, StorageError
from hedgerow.shared.messages import RenewRequest, RenewResponse


def renew(home: AgentHome) -> None:
    """Get the next certificate with the present one and make it this device's identity.

    Raises AuthError, ContentError, TransportError, StorageError; the present identity stays in place then.
    """
    config = read_config(home.config)
    present = home.identity_files()
    pending = home.joining / "renewal.key.pem"
    key = make_key(pending)
    try:
        ca_pem = present.ca.read_text()
    except OSError as error:
        raise StorageError(f"{present.ca}: cannot be read: {error.strerror}") from error
    client = DeviceClient(config.server_url, device_context(present))
    try:
        asked = RenewRequest(signing_request(key, config.device))
        response = client.post("/v1/device/renew", asked).decode(RenewResponse)
    finally:
        client.close()
    certificate = check_certificate(response.certificate_pem, ca_pem, key, config.device)
    install_identity(home, key, certificate, ca_pem, config.device)
    pending.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the renewal; 0 when the identity is new, 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="renew", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        renew(AgentHome(given.home))
    except HedgerowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
