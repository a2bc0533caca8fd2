"""The always-on parts load nothing heavy: the agent's memory at rest hangs on it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "torch flwr fastapi onnx onnxruntime tuf zeroconf typer rich pandas scipy sklearn sqlalchemy amqtt asyncio difflib"
PARTS = "telemetry.mqtt telemetry.pipeline telemetry.csv_backfill samples.store samples.ingest local_api.server watchdog"


def test_telemetry_store_and_local_api_load_nothing_heavy() -> None:
    imports = "; ".join(f"import hedgerow.edge_agent.{part}" for part in PARTS.split())
    code = f"import sys; {imports}; print(*(name for name in {HEAVY.split()!r} if name in sys.modules))"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.split() == []
