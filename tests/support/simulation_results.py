"""Results of runs made by hand, so that every figure in a report can be checked by eye."""

from __future__ import annotations

from typing import Any

import msgspec

from hedgerow.simulations.run.records import DeviceRecord, PrivacySummary, Result, RoundRecord

PRIVATE = PrivacySummary(
    mode="central-poisson",
    claim="simulated, no claim",
    unit="one device",
    relation="zero-out",
    epsilon=2.5,
    epsilon_rdp=2.75,
    epsilon_replace=4.0,
    delta=1e-5,
    noise_multiplier=1.5,
    sampling="a coin <each>",
)
OPEN = PrivacySummary(
    mode="none",
    claim="none",
    unit="none",
    relation="none",
    epsilon=None,
    epsilon_rdp=None,
    epsilon_replace=None,
    delta=None,
    noise_multiplier=None,
    sampling="none",
    notes=("No differential privacy",),
)


def round_of(number: int, **changes: Any) -> RoundRecord:
    """Return round ``number`` of a run that gets better by a tenth a round."""
    plain = RoundRecord(
        round=number,
        drawn=4,
        counted=3,
        rejected={"non-finite": 1},
        loss=2.0 / number,
        scores={"accuracy": 0.1 * number},
        bytes_up=1_000_000,
        bytes_down=2_000_000,
        simulated_s=30.0 * number,
        energy_j=5.0,
        wall_s=0.25,
    )
    return msgspec.structs.replace(plain, **changes)


def result_of(rounds: int = 3, **changes: Any) -> Result:
    """Return a finished run of ``rounds`` rounds over four devices."""
    plain = Result(
        name="by-hand",
        engine="lean",
        state="finished",
        scenario={
            "name": "by-hand",
            "description": "four <devices>",
            "job": {"training": {"learning_rate": 0.1}, "parameters": {"width": 4}},
            "population": {"source": "digits", "devices": 4},
        },
        scenario_sha256="a" * 64,
        seed=3,
        recipe="digits-cnn",
        recipe_hash="b" * 64,
        n_parameters=7,
        devices=4,
        metric="accuracy",
        higher_is_better=True,
        rounds=tuple(round_of(number) for number in range(1, rounds + 1)),
        privacy=OPEN,
        model_sha256="c" * 64,
        initial_scores={"accuracy": 0.05},
        device_records=tuple(
            DeviceRecord(n, "board", "all", 10 * n, rounds, 100, 200, 0.5, score=n / 10 if n else None)
            for n in range(4)
        ),
        versions={"python": "3"},
        wall_s=0.75,
        first_round_s=1.5,
        folder="runs/by-hand",
    )
    return msgspec.structs.replace(plain, **changes)


def with_rounds(*rounds: RoundRecord, **changes: Any) -> Result:
    """Return a run of just these rounds, without a score before the first."""
    return msgspec.structs.replace(result_of(), rounds=rounds, initial_scores={}, **changes)
