"""SCAFFOLD against the paper's algorithm in numpy (Karimireddy et al. 2020, algorithm 1, option II)."""

from __future__ import annotations

import numpy as np
from tests.support.simulation_play import LinearOracle, opened
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.simulations.run.synchronous import play_round

RATE, EPOCHS = 0.05, 3


def test_scaffold_follows_the_papers_algorithm_with_partial_participation() -> None:
    job = {
        "rounds": 6,
        "cohort": {"rule": "fixed", "size": 2},
        "training": {"batch_size": 64, "learning_rate": RATE, "local_epochs": EPOCHS},
        "strategy": {"name": "scaffold", "server_learning_rate": 0.8},
    }
    setting = tiny_setting(tiny_scenario(4, job=job))
    run = opened(setting)
    state = run.begin()
    oracle, data = LinearOracle(RATE), setting.population.at(1)
    x, c = setting.model.astype(np.float64), np.zeros(4)
    own = np.zeros((4, 4))
    for _ in range(6):
        rounds_before = state.totals.rounds.copy()
        play_round(run, state)
        drawn = np.flatnonzero(state.totals.rounds - rounds_before)
        assert drawn.size == 2
        moved, changed = [], []
        for device in drawn:
            delta = oracle.update(x, data.of(int(device))[0], EPOCHS, c - own[device])
            fresh = own[device] - c - delta / (EPOCHS * RATE)
            moved.append(delta)
            changed.append(fresh - own[device])
            own[device] = fresh
        x = x + 0.8 * np.mean(moved, axis=0)
        c = c + np.sum(changed, axis=0) / 4
        assert np.allclose(state.model, x, atol=1e-5)
        assert np.allclose(np.frombuffer(state.rule, "<f8"), c, atol=1e-4)


def test_control_variates_double_what_travels() -> None:
    setting = tiny_setting(tiny_scenario(4, job={"strategy": {"name": "scaffold"}}))
    run = opened(setting)
    record = play_round(run, run.begin())
    assert (record.bytes_up, record.bytes_down) == (4 * 32, 4 * 32)
