"""One job on one device, round after round: from an instruction to the reply and its packed update.

What stays warm between rounds: the recipe's module, the examples, the wrapped model. What is kept on disk: the
ledger. With privacy a reply carries the update, the ledger's head and the ε spent by then, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hedgerow.edge_agent.trainer import dataset, plan
from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.spent import SpentSoFar
from hedgerow.models.recipe import Parameters, Recipe, TrainingSet, recipe_hash
from hedgerow.shared import limits
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import (
    BudgetError,
    ConfigError,
    ContentError,
    IntegrityError,
    StorageError,
    TransportError,
)
from hedgerow.shared.job import CENTRAL_MODES, TrainInstruction, TrainReply
from hedgerow.shared.packing import Vector, pack
from hedgerow.shared.privacy.central import clip_to
from hedgerow.shared.privacy.entries import JobOpened, SampleRange, Unprotected

if TYPE_CHECKING:
    from hedgerow.edge_agent.trainer.dpsgd import PrivateTrainer
    from hedgerow.edge_agent.trainer.sgd import PlainResult, PlainTrainer
    from hedgerow.shared.profile import DeviceProfile

log = logging.getLogger(__name__)
FetchModel = Callable[[str], bytes | bytearray]
Answer = tuple[TrainReply, bytes]


class Session:
    """Answers the instructions of one job. Not safe for two threads at once."""

    def __init__(
        self,
        job_id: str,
        *,
        open_samples: Callable[[], dataset.Samples],
        ledger: DeviceLedger,
        find_recipe: Callable[[str], Recipe],
        profile: DeviceProfile | None,
        fetch_model: FetchModel,
    ) -> None:
        self._job_id = job_id
        self._open_samples = open_samples
        self._samples: dataset.Samples | None = None
        self._ledger = ledger
        self._find_recipe = find_recipe
        self._profile = profile
        self._fetch_model = fetch_model
        self._request: str | None = None
        self._recipe: Recipe | None = None
        self._parameters: Parameters = {}
        self._plain: PlainTrainer | None = None
        self._private: PrivateTrainer | None = None
        self._spent = SpentSoFar()

    def answer(self, instruction: TrainInstruction) -> Answer:
        """Return the reply and its payload; whatever this device cannot do is a reply with an error code.

        Raises MemoryError, IntegrityError (the ledger is damaged: nothing may be trained), TransportError (the model
        could not be fetched; worth another try).
        """
        try:
            return self._answer(instruction)
        except DeclinedError as error:
            return self._refuse(instruction, error.code, error.detail)
        except BudgetError as error:
            return self._refuse(instruction, Code.BUDGET, str(error))
        except StorageError as error:
            return self._refuse(instruction, Code.STORAGE, str(error))
        except (MemoryError, IntegrityError, TransportError):
            raise
        except Exception as error:
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            log.exception("training failed")
            return self._refuse(instruction, Code.TRAINING, repr(error))

    def _answer(self, instruction: TrainInstruction) -> Answer:
        recipe = self._prepare(instruction)
        if instruction.privacy.mode == "example":
            return self._answer_private(instruction, recipe)
        if instruction.privacy.mode == "none":
            return self._answer_plain(instruction, recipe)
        if instruction.privacy.mode == "central-poisson":
            return self._answer_central(instruction, recipe)
        raise DeclinedError(Code.UNSUPPORTED, f"privacy mode {instruction.privacy.mode!r} is not built")

    def _prepare(self, instruction: TrainInstruction) -> Recipe:
        """Check that the instruction is of this job and asks what it asked before; find its recipe, once."""
        if instruction.job_id != self._job_id:
            raise DeclinedError(Code.CHANGED, f"an instruction of job {instruction.job_id!r}")
        request = plan.job_digest(instruction)
        if self._recipe is None:
            recipe = self._installed(instruction)
            self._parameters = _checked(recipe, instruction.parameters)
            self._recipe, self._request = recipe, request
        if request != self._request:
            raise DeclinedError(Code.CHANGED, "the job asks for something else than in its first round")
        return self._recipe

    def _installed(self, instruction: TrainInstruction) -> Recipe:
        try:
            recipe = self._find_recipe(instruction.recipe)
        except ConfigError as error:
            raise DeclinedError(Code.RECIPE, str(error)) from error
        if recipe_hash(recipe) != instruction.recipe_hash:
            raise DeclinedError(
                Code.RECIPE, f"recipe {instruction.recipe!r} here differs from the job's; install its version"
            )
        return recipe

    def _answer_plain(self, instruction: TrainInstruction, recipe: Recipe) -> Answer:
        result = self._train_plain(instruction, recipe)
        payload = pack(result.delta, instruction.packing)
        metrics = {"loss": result.loss} if np.isfinite(result.loss) else {}
        return _reply(instruction, payload, n_samples=result.n_samples, metrics=metrics), payload

    def _answer_central(self, instruction: TrainInstruction, recipe: Recipe) -> Answer:
        """Train as without privacy, clip, and send the update alone: the server adds the noise.

        Losses and counts would be releases without noise, so they stay here. An update that is not finite is not sent:
        it counts as zero.
        """
        result = self._train_plain(instruction, recipe)
        payload = pack(clip_to(result.delta, instruction.privacy.clip_norm_l2), instruction.packing)
        return _reply(instruction, payload), payload

    def _train_plain(self, instruction: TrainInstruction, recipe: Recipe) -> PlainResult:
        if self._plain is None:
            from hedgerow.edge_agent.trainer.sgd import PlainTrainer

            chosen = self._unprotected_range(instruction, recipe)
            data = self._load(chosen, recipe, private=False)
            self._plain = PlainTrainer(recipe, recipe.build(self._parameters), data)
        model = self._model(instruction, self._plain.flat.size)
        return self._plain.train(model, instruction.training, _order_seed(instruction))

    def _unprotected_range(self, instruction: TrainInstruction, recipe: Recipe) -> SampleRange:
        state = self._ledger.state()
        if self._job_id in state.jobs:
            raise DeclinedError(Code.CHANGED, "this job began with privacy")
        mode = instruction.privacy.mode
        protected_by = mode if mode in CENTRAL_MODES else ""
        known = state.unprotected.get(self._job_id)
        if known is not None:
            if known.protected_by != protected_by:
                raise DeclinedError(Code.CHANGED, "this job began in another privacy mode")
            return known.samples
        chosen = self._snapshot(instruction, recipe)
        self._ledger.open_unprotected(Unprotected(self._job_id, chosen, protected_by))
        return chosen

    def _answer_private(self, instruction: TrainInstruction, recipe: Recipe) -> Answer:
        opened, data = self._open_private(instruction, recipe)
        if self._private is None:
            from hedgerow.edge_agent.trainer.dpsgd import PrivateTrainer

            data = data or self._load(opened.samples, recipe, private=True)
            self._private = PrivateTrainer(recipe, recipe.build(self._parameters), data)
        model = self._model(instruction, self._private.flat.size)
        request = plan.exchange_digest(instruction)
        stored = self._ledger.reserve(self._job_id, instruction.round, instruction.exchange, request)
        if stored is not None:
            return self._private_reply(instruction, stored.payload, stored.head), stored.payload
        delta = self._private.train(model, instruction.training, plan.steps_of(opened))
        payload = pack(delta, instruction.packing)
        head = self._ledger.release(self._job_id, instruction.round, instruction.exchange, request, payload)
        return self._private_reply(instruction, payload, head), payload

    def _private_reply(self, instruction: TrainInstruction, payload: bytes, head: str) -> TrainReply:
        account = self._ledger.state().jobs[self._job_id]
        spent = self._spent.after(account, (instruction.round, instruction.exchange))
        return _reply(instruction, payload, head=head, length=self._ledger.length(), epsilon=spent)

    def _open_private(
        self, instruction: TrainInstruction, recipe: Recipe
    ) -> tuple[JobOpened, TrainingSet | None]:
        """Return the job's plan, made now if this is its first round, and the examples if they were read for it."""
        state = self._ledger.state()
        if self._job_id in state.unprotected:
            raise DeclinedError(Code.CHANGED, "this job began without privacy")
        account = state.jobs.get(self._job_id)
        if account is not None:
            if account.opened.request != self._request:
                raise DeclinedError(Code.CHANGED, "the ledger holds this job with another request")
            return account.opened, None
        chosen = self._snapshot(instruction, recipe)
        data = self._load(chosen, recipe, private=True)
        opened = self._ledger.open_job(
            lambda state: plan.open_private_job(instruction, chosen, len(data.x), state)
        )
        return opened, data

    def _snapshot(self, instruction: TrainInstruction, recipe: Recipe) -> SampleRange:
        spec = recipe.input_spec(self._parameters)
        return dataset.snapshot(self._stored(), spec, instruction.training.max_samples)

    def _load(self, chosen: SampleRange, recipe: Recipe, *, private: bool) -> TrainingSet:
        return dataset.load(self._stored(), chosen, recipe, self._parameters, self._profile, private=private)

    def _stored(self) -> dataset.Samples:
        """Return the sample store, opened when first needed: a device may join a job before its first reading."""
        if self._samples is None:
            self._samples = self._open_samples()
        return self._samples

    def _model(self, instruction: TrainInstruction, size: int) -> Vector:
        """Return the global model, checked: hash, length, finite."""
        if instruction.n_parameters != size:
            raise DeclinedError(Code.MODEL, f"{instruction.n_parameters} parameters; the recipe has {size}")
        data = instruction.model or self._fetched(instruction.model_sha256, size)
        if len(data) > limits.MAX_UPDATE_BYTES or len(data) != 4 * size:
            raise DeclinedError(Code.MODEL, f"{len(data)} bytes where {size} float32 values were promised")
        if size and sha256_hex(memoryview(data)) != instruction.model_sha256:
            raise DeclinedError(Code.MODEL, "the model's SHA-256 differs from the instruction's")
        model = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        if not np.isfinite(model).all():
            raise DeclinedError(Code.MODEL, "the model holds a value that is not finite")
        return model

    def _fetched(self, sha256: str, size: int) -> bytes | bytearray:
        if size == 0:
            return b""
        try:
            return self._fetch_model(sha256)
        except ContentError as error:
            raise DeclinedError(Code.MODEL, str(error)) from error

    @staticmethod
    def _refuse(instruction: TrainInstruction, code: Code, detail: str) -> Answer:
        log.warning("round %d not trained (%s): %s", instruction.round, code.value, detail)
        return _reply(instruction, b"", error=code.value), b""


def _checked(recipe: Recipe, parameters: Parameters) -> Parameters:
    try:
        return recipe.check(parameters)
    except ConfigError as error:
        raise DeclinedError(Code.UNSUPPORTED, str(error)) from error


def _order_seed(instruction: TrainInstruction) -> tuple[int, ...]:
    """Return a seed for the order of batches in training without privacy: the same job repeats itself."""
    digest = hashlib.sha256(instruction.job_id.encode()).digest()
    return int.from_bytes(digest[:8], "big"), instruction.round, instruction.exchange


def _reply(
    instruction: TrainInstruction,
    payload: bytes,
    *,
    n_samples: int | None = None,
    metrics: dict[str, float] | None = None,
    head: str | None = None,
    length: int | None = None,
    epsilon: float | None = None,
    error: str | None = None,
) -> TrainReply:
    """Return the reply's header; ``epsilon`` is what was spent, at the δ that the job asked for."""
    private = instruction.privacy.mode == "example" and error is None
    return TrainReply(
        job_id=instruction.job_id,
        round=instruction.round,
        exchange=instruction.exchange,
        n_parameters=instruction.n_parameters,
        packing=instruction.packing,
        update_bytes=len(payload),
        update_sha256=sha256_hex(payload),
        n_samples=n_samples,
        metrics=metrics or {},
        error=error,
        ledger_head=head,
        ledger_length=length,
        epsilon=epsilon,
        delta=instruction.privacy.delta if private else None,
    )
