"""May this version be installed here? Pure: what is asked, what served before, what is signed.

A server that is asked to betray its devices can only ask: it may name any version in the desired state, but an older
one is taken only if the device served it last (its own previous slot), or if going back to it is signed.
"""

from __future__ import annotations

from typing import Literal

from hedgerow.edge_agent.slots.record import Confirmed
from hedgerow.shared.messages import BundleTarget

Verdict = Literal["allowed", "needs-signed-leave", "refused"]


def may_install(target: BundleTarget, confirmed: Confirmed | None, previous_sha256: str | None) -> Verdict:
    """Return whether ``target`` may be installed on a device whose newest served version is ``confirmed``.

    ``needs-signed-leave``: only if its signed metadata says ``rollback_ok``. ``previous_sha256`` is the manifest
    hash of the device's own intact other slot.
    """
    if confirmed is None or target.version > confirmed.version:
        return "allowed"
    if target.version == confirmed.version:
        # The same number with other content is a version that was issued twice: never.
        return "allowed" if target.manifest_sha256 == confirmed.manifest_sha256 else "refused"
    if not target.rollback_ok:
        return "refused"
    return "allowed" if target.manifest_sha256 == previous_sha256 else "needs-signed-leave"
