"""What the jobs ask about the fleet: who may be drawn, and which recipe code devices have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hedgerow.server.fleet.service import Fleet
from hedgerow.shared.job import PopulationSpec
from hedgerow.shared.messages import ReportedState


class Population:
    """Answers from registrations and the latest heartbeats."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def population(self, spec: PopulationSpec) -> Sequence[str]:
        """Return the registered, not revoked devices that match every filter of ``spec``, by name."""
        return sorted(
            device.name
            for device in self._fleet.devices.all()
            if device.status == "active"
            and (not spec.groups or set(spec.groups) & set(device.groups))
            and (not spec.devices or device.name in spec.devices)
            and (spec.profile is None or self._profile(device.name) == spec.profile)
        )

    def recipe_hashes(self, recipe: str, devices: Sequence[str]) -> Mapping[str, str | None]:
        """Return the recipe's code hash per device, None where it is not installed; silent devices are left out."""
        found: dict[str, str | None] = {}
        for device in devices:
            state = self._state(device)
            if state is not None:
                found[device] = next((r.code_hash for r in state.recipes if r.name == recipe), None)
        return found

    def _state(self, device: str) -> ReportedState | None:
        seen = self._fleet.heartbeats.get(device)
        return None if seen is None else seen.heartbeat.state

    def _profile(self, device: str) -> str | None:
        state = self._state(device)
        return None if state is None else state.profile
