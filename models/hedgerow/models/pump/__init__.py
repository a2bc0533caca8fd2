"""A pump in a water loop, simulated: the public telemetry of the anomaly recipe and the demo's sensors."""

from hedgerow.models.pump.faults import DEFAULT_FAULT, FAULTS, Fault
from hedgerow.models.pump.machine import CHANNELS, Machine, MachineSpec, draw_machine

__all__ = ["CHANNELS", "DEFAULT_FAULT", "FAULTS", "Fault", "Machine", "MachineSpec", "draw_machine"]
