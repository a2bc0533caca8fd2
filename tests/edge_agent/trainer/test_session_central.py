"""Mode ``central-poisson`` on the device: a clipped update leaves and nothing else; the ledger says what the server saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.edge_agent.trainer.test_session import NONE, Device, delta_of, instruction
from tests.support.tiny_recipe import examples

from hedgerow.edge_agent.trainer.codes import Code
from hedgerow.shared.job import Packing, PrivacySpec, TrainingSpec
from hedgerow.shared.privacy.central import norm_l2
from hedgerow.shared.privacy.entries import Unprotected
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.shared.privacy.statement import lifetime_epsilon, recompute

HARD = TrainingSpec(batch_size=10, learning_rate=5.0, local_epochs=3)


def central(clip: float = 0.01, **more: Any) -> PrivacySpec:
    return PrivacySpec(mode="central-poisson", epsilon=2.0, delta=1e-4, clip_norm_l2=clip, **more)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize("clip", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("training", [TrainingSpec(batch_size=10, learning_rate=0.1), HARD])
def test_what_leaves_is_the_plain_update_clipped(tmp_path: Path, clip: float, training: TrainingSpec) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = delta_of(Device(tmp_path / "a").session().answer(instruction(NONE, training=training)))

    sent = delta_of(Device(tmp_path / "b").session().answer(instruction(central(clip), training=training)))

    assert norm_l2(sent) <= clip
    factor = min(1.0, clip / norm_l2(plain))
    assert np.allclose(sent, plain * factor, rtol=1e-5, atol=1e-9)


def test_no_loss_no_count_no_ledger_and_no_budget_leave_with_it(device: Device) -> None:
    header, payload = device.session().answer(instruction(central()))

    asked_for = {"job_id", "round", "exchange", "n_parameters", "packing", "update_bytes", "update_sha256"}
    told = {name: value for name, value in msgspec.structs.asdict(header).items() if name not in asked_for}
    assert told.pop("metrics") == {}
    assert set(told.values()) == {None}
    assert len(payload) == header.update_bytes


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
def test_every_packing_carries_it(device: Device, packing: Packing) -> None:
    sent = delta_of(device.session().answer(instruction(central(0.5), packing=packing)))

    assert 0 < norm_l2(sent) <= {"float32": 0.5, "float16": 0.501, "int8": 1.0}[packing]


def test_an_update_that_is_not_finite_does_not_leave(device: Device) -> None:
    with np.errstate(all="ignore"):
        header, payload = device.session().answer(
            instruction(central(), training=TrainingSpec(learning_rate=1e38, local_epochs=20))
        )

    assert (header.error, payload) == (Code.TRAINING, b"")
    assert (header.n_samples, header.metrics) == (None, {})


def test_the_device_records_that_the_server_saw_its_updates_without_noise(device: Device) -> None:
    session = device.session()
    for number in (1, 2):
        delta_of(session.answer(instruction(central(), round=number)))

    chain = verify(device.ledger)
    assert chain.length == 1
    noted = chain.state.unprotected["job"]
    assert (noted.protected_by, noted.samples.up_to_id) == ("central-poisson", 60)
    assert lifetime_epsilon(device.ledger, 1e-5) == float("inf")
    assert recompute(device.ledger) == ()


def test_a_later_private_job_on_the_same_samples_says_that_they_had_left_before(device: Device) -> None:
    delta_of(device.session("first").answer(instruction(central(), job_id="first")))
    delta_of(device.session().answer(instruction()))

    (statement,) = recompute(device.ledger)
    assert verify(device.ledger).state.jobs["job"].opened.earlier_unprotected
    assert statement.epsilon_pld <= 2.0
    assert statement.epsilon_samples == float("inf")


@pytest.mark.parametrize(
    ("first", "then"), [(central(), NONE), (NONE, central()), (central(), PrivacySpec("example", 2.0, 1e-4))]
)
def test_a_job_stays_in_the_mode_that_it_began_in_over_a_restart(
    device: Device, first: PrivacySpec, then: PrivacySpec
) -> None:
    delta_of(device.session().answer(instruction(first)))

    header, payload = device.session().answer(instruction(then, round=2))

    assert (header.error, payload) == (Code.CHANGED, b"")


def test_a_round_asked_again_after_the_servers_restart_is_answered_again(device: Device) -> None:
    first, again = (delta_of(device.session().answer(instruction(central()))) for _ in range(2))

    assert np.array_equal(first, again)
    assert verify(device.ledger).length == 1


def test_the_samples_of_the_first_round_stay_those_of_the_job(device: Device) -> None:
    first = delta_of(device.session().answer(instruction(central(1.0))))
    device.add(examples(40) + 3)

    again = delta_of(device.session().answer(instruction(central(1.0))))

    assert np.array_equal(first, again)


def test_a_clip_norm_cannot_change_from_round_to_round(device: Device) -> None:
    session = device.session()
    delta_of(session.answer(instruction(central(0.01))))

    header, _ = session.answer(instruction(central(10.0), round=2))

    assert header.error == Code.CHANGED


@pytest.mark.parametrize("mode", ["central-bandmf", "distributed", "local"])
def test_modes_that_are_not_built_are_declined(device: Device, mode: Any) -> None:
    header, payload = device.session().answer(instruction(PrivacySpec(mode, 2.0, 1e-4)))

    assert (header.error, payload) == (Code.UNSUPPORTED, b"")
    assert verify(device.ledger).length == 0


def test_ledgers_of_earlier_releases_are_read_as_before() -> None:
    """An entry without the newer field is what it was, and one that does not need it is written as it always was."""
    old = b'{"type":"unprotected","job_id":"j","samples":{"spec":"s","after_id":0,"up_to_id":5}}'

    entry = msgspec.json.decode(old, type=Unprotected)

    assert entry.protected_by == ""
    assert msgspec.json.encode(entry) == old
