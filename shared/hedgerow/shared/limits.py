"""Upper bounds on everything that comes from outside: bytes before decoding, counts after."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_TOML_BYTES: Final = 256 * KIB
MAX_TOML_DEPTH: Final = 32
MAX_MQTT_PAYLOAD_BYTES: Final = 64 * KIB
MAX_CONTROL_BODY_BYTES: Final = 256 * KIB
MAX_EVENT_BYTES: Final = 16 * KIB
MAX_EVENTS_PER_BATCH: Final = 256
MAX_MANIFEST_BYTES: Final = 4 * MIB
MAX_ARTEFACT_BYTES: Final = 512 * MIB
MAX_MODEL_PARAMETERS: Final = 100_000_000
MAX_UPDATE_BYTES: Final = 4 * MAX_MODEL_PARAMETERS + 64 * KIB
MAX_INLINE_MODEL_BYTES: Final = 64 * KIB
MAX_CHANNELS: Final = 256
MAX_WINDOW_ROWS: Final = 8192
MAX_TENSOR_ELEMENTS: Final = 16 * MIB
MAX_TENSOR_DIMS: Final = 6
MAX_DEVICES_PER_COHORT: Final = 10_000
MAX_ROUNDS: Final = 10_000
MAX_PREDICT_BODY_BYTES: Final = 16 * MIB
MAX_CSV_BYTES: Final = 1024 * MIB
MAX_TOKEN_BYTES: Final = 256
MAX_NAME_CHARS: Final = 63
