"""From instruction to reply over a real sample store and ledger: what leaves, what is refused, what is repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.support.tiny_recipe import RECIPE, WIDTH, TinyRecipe, examples

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.trainer.codes import Code
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.session import Session
from hedgerow.models.recipe import Floats, Recipe, TrainingSet, recipe_hash
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, StorageError, TransportError
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction, TrainReply
from hedgerow.shared.packing import unpack
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.shared.privacy.statement import recompute_job
from hedgerow.shared.specs import Sample

EXAMPLE = PrivacySpec("example", 2.0, 1e-4)
NONE = PrivacySpec("none")
MODEL = np.linspace(-1, 1, WIDTH + 1).astype("<f4")


class Device:
    """A device's folder: samples and ledger on disk, sessions opened over them as a trainer process would."""

    def __init__(self, folder: Path, n: int = 60) -> None:
        self.samples = folder / "samples.db"
        self.ledger = folder / "ledger.db"
        self.recipe: Recipe = RECIPE
        self.models: dict[str, bytes] = {}
        if n:
            self.add(examples(n))

    def add(self, arrays: Floats, spec: str = "tiny") -> None:
        store = SampleStore(self.samples, max_bytes=10**8, max_age_s=None)
        start = store.last_id(spec)
        store.add([Sample(spec, x, start + n, start + n, "raw") for n, x in enumerate(arrays)])
        store.close()

    def session(self, job_id: str = "job", fetch: Callable[[str], bytes] | None = None) -> Session:
        return Session(
            job_id,
            open_samples=lambda: SampleStore(self.samples, max_bytes=0, max_age_s=None, read_only=True),
            ledger=DeviceLedger(self.ledger),
            find_recipe=self.find,
            profile=None,
            fetch_model=fetch or self.models.__getitem__,
        )

    def find(self, name: str) -> Recipe:
        if name != self.recipe.name:
            raise ConfigError(f"no recipe {name!r}")
        return self.recipe


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def instruction(privacy: PrivacySpec = EXAMPLE, **changes: Any) -> TrainInstruction:
    model = changes.pop("model", MODEL.tobytes())
    base = TrainInstruction(
        job_id="job",
        round=1,
        exchange=0,
        recipe="tiny",
        recipe_hash=recipe_hash(RECIPE),
        parameters={},
        privacy=privacy,
        training=TrainingSpec(batch_size=10, learning_rate=0.1),
        packing="float32",
        rounds=3,
        n_parameters=WIDTH + 1,
        model_sha256=sha256_hex(model),
        deadline_s=60,
        model=model,
    )
    return msgspec.structs.replace(base, **changes)


def delta_of(answer: tuple[TrainReply, bytes]) -> Floats:
    header, payload = answer
    assert header.error is None, header.error
    assert (header.update_bytes, header.update_sha256) == (len(payload), sha256_hex(payload))
    return unpack(payload, header.n_parameters, header.packing)


def test_without_privacy_the_update_loss_and_count_come_back(device: Device) -> None:
    answer = device.session().answer(instruction(NONE))

    assert np.abs(delta_of(answer)).max() > 0
    assert answer[0].n_samples == 60
    assert answer[0].metrics["loss"] > 0
    assert (answer[0].ledger_head, answer[0].epsilon, answer[0].delta) == (None, None, None)


def test_without_privacy_the_same_round_repeats_and_the_next_one_differs(device: Device) -> None:
    training = TrainingSpec(batch_size=7, learning_rate=0.05)

    first, again, later = (
        delta_of(device.session().answer(instruction(NONE, training=training, round=number)))
        for number in (1, 1, 2)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)


def test_without_privacy_the_samples_are_marked_as_unprotected(device: Device) -> None:
    session = device.session()
    for number in (1, 2):
        session.answer(instruction(NONE, round=number))

    chain = verify(device.ledger)
    assert chain.length == 1
    assert chain.state.unprotected["job"].samples.up_to_id == 60


def test_with_privacy_only_the_update_the_head_and_what_was_spent_leave(device: Device) -> None:
    header, payload = device.session().answer(instruction())

    assert delta_of((header, payload)).shape == (WIDTH + 1,)
    assert (header.n_samples, header.metrics) == (None, {})
    own = verify(device.ledger).state.charged_with("job")
    assert header.epsilon == pytest.approx(epsilon(own, 1e-4), rel=0.01)
    assert header.delta == 1e-4
    assert header.ledger_head == verify(device.ledger).head.hex()
    assert header.ledger_length == verify(device.ledger).length


def said_by(folder: Path, n: int) -> list[TrainReply]:
    """Return the headers of a whole job on a device of ``n`` examples, without what is random in them."""
    folder.mkdir()
    session = Device(folder, n).session()
    headers = [session.answer(instruction(round=number))[0] for number in (1, 2, 3)]
    return [msgspec.structs.replace(header, update_sha256="", ledger_head="") for header in headers]


def test_what_private_replies_say_is_the_same_for_devices_of_the_same_rounded_count(tmp_path: Path) -> None:
    smallest, largest, next_class = (said_by(tmp_path / str(n), n) for n in (45, 63, 64))

    assert smallest == largest
    assert smallest != next_class


def test_epsilon_grows_over_the_rounds_to_what_the_accountant_finds_and_no_further_than_asked(
    device: Device,
) -> None:
    session, stated, exact = device.session(), [], []
    for number in (1, 2, 3):
        stated.append(session.answer(instruction(round=number))[0].epsilon or 0.0)
        exact.append(recompute_job(device.ledger, "job").epsilon_pld)

    assert all(true <= said <= 1.01 * true for said, true in zip(stated, exact, strict=True))
    assert stated == sorted(stated)
    assert stated[0] < 0.8 * stated[2]
    assert 1.99 < stated[2] <= 2.0


def test_the_ledger_holds_what_was_done_and_it_is_within_the_budget(device: Device) -> None:
    session = device.session()
    for number in (1, 2, 3):
        delta_of(session.answer(instruction(round=number)))

    found = recompute_job(device.ledger, "job")
    assert found.within_budget
    assert (found.n, found.steps, found.planned_steps, found.rounds_released) == (60, 15, 15, 3)
    assert found.sampling_rate == 10 / 45
    assert 1.95 < found.epsilon_pld <= 2.0


def test_rounds_beyond_the_jobs_are_declined_without_training(device: Device) -> None:
    session = device.session()
    for number in (1, 2, 3):
        session.answer(instruction(round=number))

    header, payload = session.answer(instruction(round=4))

    assert (header.error, payload) == (Code.BUDGET, b"")
    assert recompute_job(device.ledger, "job").steps == 15


def test_the_noise_differs_where_everything_else_is_the_same(tmp_path: Path) -> None:
    deltas = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(7)
        np.random.seed(7)
        deltas.append(delta_of(Device(tmp_path / name).session().answer(instruction())))

    assert np.abs(deltas[0] - deltas[1]).min() > 1e-7


def test_an_update_that_was_stored_is_sent_again_by_the_same_and_by_a_new_process(device: Device) -> None:
    session = device.session()
    first = session.answer(instruction())

    assert session.answer(instruction()) == first
    assert device.session().answer(instruction()) == first
    assert recompute_job(device.ledger, "job").steps == 5


def test_a_released_round_is_not_answered_for_another_model(device: Device) -> None:
    session = device.session()
    session.answer(instruction())
    other = (MODEL * 2).tobytes()

    header, _ = session.answer(instruction(model=other))

    assert header.error == Code.BUDGET


def test_a_training_that_failed_keeps_one_charge_and_may_be_tried_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = device.session()

    def fail(*_: object) -> None:
        raise RuntimeError("the example on row 7 is odd")

    with monkeypatch.context() as patch:
        patch.setattr("hedgerow.edge_agent.trainer.dpsgd.PrivateTrainer.train", fail)
        header, payload = session.answer(instruction())

    assert (header.error, payload) == (Code.TRAINING, b"")
    assert b"row 7" not in msgspec.json.encode(header)
    delta_of(session.answer(instruction()))
    assert recompute_job(device.ledger, "job").steps == 5


def test_a_failed_allocation_ends_the_process_rather_than_the_round(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("hedgerow.edge_agent.trainer.sgd.PlainTrainer.train", fail)

    with pytest.raises(MemoryError):
        device.session().answer(instruction(NONE))


def test_the_samples_of_the_first_round_stay_the_samples_of_the_job(device: Device) -> None:
    device.session().answer(instruction())
    device.session("open").answer(instruction(NONE, job_id="open"))
    device.add(examples(500, seed=9))

    delta_of(device.session().answer(instruction(round=2)))
    later = device.session("open").answer(instruction(NONE, job_id="open", round=2))

    assert later[0].n_samples == 60
    assert verify(device.ledger).state.jobs["job"].opened.samples.up_to_id == 60


def test_a_job_whose_samples_made_room_for_others_declines(device: Device) -> None:
    delta_of(device.session().answer(instruction()))
    device.samples.unlink()
    SampleStore(device.samples, max_bytes=10**8, max_age_s=None).close()
    device.add(examples(200, seed=4), spec="other")
    device.add(examples(5, seed=4))

    assert device.session().answer(instruction(round=2))[0].error == Code.NO_SAMPLES


def test_a_recipe_that_finds_nothing_fit_declines(device: Device) -> None:
    class Nothing(TinyRecipe):
        def training_set(self, *_: Any) -> Any:
            return TrainingSet(np.zeros((0, WIDTH), np.float32), None)

    device.recipe = Nothing()
    asked = instruction(recipe_hash=recipe_hash(device.recipe))

    assert device.session().answer(asked)[0].error == Code.NO_SAMPLES


def test_only_the_newest_samples_are_used_where_there_are_more_than_allowed(device: Device) -> None:
    training = TrainingSpec(batch_size=10, max_samples=25)

    header, _ = device.session().answer(instruction(NONE, training=training))

    assert header.n_samples == 25
    assert verify(device.ledger).state.unprotected["job"].samples.after_id == 35


def test_a_second_job_on_the_same_samples_needs_a_larger_budget(device: Device) -> None:
    delta_of(device.session().answer(instruction()))

    same, _ = device.session("second").answer(instruction(job_id="second"))
    larger = device.session("third").answer(instruction(PrivacySpec("example", 4.0, 1e-4), job_id="third"))

    assert same.error == Code.BUDGET
    delta_of(larger)
    third = recompute_job(device.ledger, "third")
    assert third.epsilon_pld < third.epsilon_samples <= 4


def test_a_delta_too_large_for_the_device_is_declined_with_nothing_but_its_code(tmp_path: Path) -> None:
    header, payload = Device(tmp_path, 30).session().answer(instruction(PrivacySpec("example", 8.0, 0.01)))

    assert (header.error, payload, header.ledger_head, header.n_samples) == (Code.DELTA, b"", None, None)
    assert verify(tmp_path / "ledger.db").length == 0


@pytest.mark.parametrize("privacy", [EXAMPLE, NONE])
def test_a_device_without_samples_declines(tmp_path: Path, privacy: PrivacySpec) -> None:
    empty = Device(tmp_path, 0)
    SampleStore(empty.samples, max_bytes=10**8, max_age_s=None).close()

    header, _ = empty.session().answer(instruction(privacy))

    assert header.error == Code.NO_SAMPLES
    (tmp_path / "missing").mkdir()
    missing, _ = Device(tmp_path / "missing", 0).session().answer(instruction(privacy))
    assert missing.error == Code.STORAGE


def test_a_device_that_gets_samples_later_joins_then(tmp_path: Path) -> None:
    device = Device(tmp_path, 0)
    SampleStore(device.samples, max_bytes=10**8, max_age_s=None).close()
    session = device.session()
    session.answer(instruction())

    device.add(examples(60))

    delta_of(session.answer(instruction(round=2)))


def test_samples_of_another_shape_are_not_trained_on(tmp_path: Path) -> None:
    device = Device(tmp_path, 0)
    device.add(np.zeros((5, WIDTH + 2), np.float32))

    assert device.session().answer(instruction())[0].error == Code.NO_SAMPLES


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipe": "unknown"}, Code.RECIPE),
        ({"recipe_hash": "0" * 64}, Code.RECIPE),
        ({"job_id": "another"}, Code.CHANGED),
        ({"parameters": {"colour": 1}}, Code.UNSUPPORTED),
        ({"parameters": {"layer": "norm"}}, Code.UNSUPPORTED),
        ({"parameters": {"copies": 2}}, Code.UNSUPPORTED),
        ({"privacy": PrivacySpec("local", 8.0, 1e-4)}, Code.UNSUPPORTED),
        ({"privacy": PrivacySpec("example", None, 1e-4)}, Code.UNSUPPORTED),
        ({"n_parameters": 5}, Code.MODEL),
        ({"model_sha256": "0" * 64}, Code.MODEL),
        ({"model": MODEL[:3].tobytes()}, Code.MODEL),
        ({"model": np.array([1, 2, np.nan, 4], "<f4").tobytes()}, Code.MODEL),
    ],
)
def test_an_instruction_that_cannot_be_followed_is_declined_with_its_code(
    device: Device, changes: dict[str, Any], code: Code
) -> None:
    header, payload = device.session().answer(instruction(**changes))

    assert (header.error, payload, header.update_bytes) == (code, b"", 0)
    account = verify(device.ledger).state.jobs.get("job")
    assert account is None or account.steps == 0


def test_a_recipe_with_several_examples_of_one_sample_is_fine_without_privacy(device: Device) -> None:
    assert device.session().answer(instruction(NONE, parameters={"copies": 2}))[0].n_samples == 120


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": PrivacySpec("example", 80.0, 1e-4)},
        {"training": TrainingSpec(batch_size=60)},
        {"rounds": 300},
        {"privacy": NONE},
    ],
)
def test_a_job_cannot_ask_for_something_else_later(device: Device, changes: dict[str, Any]) -> None:
    warm = device.session()
    delta_of(warm.answer(instruction()))
    later = instruction(**{"round": 2, **changes})

    assert warm.answer(later)[0].error == Code.CHANGED
    if later.privacy.mode == "example":
        assert device.session().answer(later)[0].error == Code.CHANGED


def test_a_job_cannot_drop_its_privacy_by_a_restart_of_the_trainer(device: Device) -> None:
    delta_of(device.session().answer(instruction()))

    header, payload = device.session().answer(instruction(NONE, round=2))

    assert (header.error, payload) == (Code.CHANGED, b"")


def test_a_job_that_began_without_privacy_cannot_claim_it_later(device: Device) -> None:
    delta_of(device.session().answer(instruction(NONE)))

    assert device.session().answer(instruction(round=2))[0].error == Code.CHANGED


def test_the_model_is_fetched_by_its_hash_when_it_does_not_come_along(device: Device) -> None:
    asked = instruction(NONE)
    device.models[asked.model_sha256] = asked.model
    inline = delta_of(device.session().answer(asked))

    fetched = delta_of(device.session().answer(msgspec.structs.replace(asked, model=b"")))

    assert np.array_equal(inline, fetched)


@pytest.mark.parametrize("error", [ContentError("gone"), IntegrityError("another model came")])
def test_a_model_that_cannot_be_had_costs_the_round(device: Device, error: Exception) -> None:
    def fetch(_: str) -> bytes:
        raise error

    header, _ = device.session(fetch=fetch).answer(msgspec.structs.replace(instruction(), model=b""))

    assert header.error == Code.MODEL
    assert recompute_job(device.ledger, "job").steps == 0


def test_a_server_out_of_reach_is_left_to_the_loop(device: Device) -> None:
    def fetch(_: str) -> bytes:
        raise TransportError("no route")

    with pytest.raises(TransportError):
        device.session(fetch=fetch).answer(msgspec.structs.replace(instruction(), model=b""))


def test_a_damaged_ledger_ends_the_trainer_and_a_full_disk_the_round(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("disk full")

    def damaged(*_: object) -> None:
        raise IntegrityError("altered")

    session = device.session()
    monkeypatch.setattr(DeviceLedger, "reserve", full)
    assert session.answer(instruction())[0].error == Code.STORAGE
    monkeypatch.setattr(DeviceLedger, "reserve", damaged)
    with pytest.raises(IntegrityError):
        session.answer(instruction())


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
@pytest.mark.parametrize("privacy", [EXAMPLE, NONE])
def test_every_packing_carries_the_update(device: Device, packing: Any, privacy: PrivacySpec) -> None:
    header, payload = device.session().answer(instruction(privacy, packing=packing))

    assert header.packing == packing
    assert np.isfinite(delta_of((header, payload))).all()


def test_an_update_that_is_not_finite_does_not_leave(device: Device) -> None:
    training = TrainingSpec(batch_size=10, learning_rate=1e30, local_epochs=5)

    assert device.session().answer(instruction(NONE, training=training))[0].error == Code.TRAINING


def test_a_recipe_without_parameters_answers_with_nothing(device: Device) -> None:
    asked = instruction(NONE, parameters={"layer": "empty"}, n_parameters=0, model=b"")

    header, payload = device.session().answer(asked)

    assert (header.error, payload, header.n_samples) == (None, b"", 60)


def test_recipes_that_cannot_read_the_samples_are_told_apart(device: Device) -> None:
    class Picky(TinyRecipe):
        def training_set(self, *_: Any) -> Any:
            raise ContentError("no normal window")

    class Wrong(TinyRecipe):
        def training_set(self, *_: Any) -> Any:
            raise ConfigError("channels differ")

    for recipe, code in ((Picky(), Code.NO_SAMPLES), (Wrong(), Code.UNSUPPORTED)):
        device.recipe = recipe
        asked = instruction(recipe_hash=recipe_hash(recipe))
        assert device.session().answer(asked)[0].error == code


def test_every_code_is_short_and_says_declined_or_failed() -> None:
    assert all(code.value.split("-")[0] in ("declined", "failed") and len(code) < 32 for code in Code)
