"""Kernels proven and timed in a forked process: one that crashes natively costs itself, not the run.

A recipe is anybody's code and runs in native libraries. What the engine's own process does with a kernel afterwards (making
it, predictions with it) is what the forked one survived on the same recipe. The process is forked before torch has started
a thread, and has one itself.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.kernel.choose import Choice, read_choice, seconds_a_step, shortened
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.lean.process import WorkerProcess, give_back_free_memory

log = logging.getLogger(__name__)
_CPU: Final = "cpu"


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """Make a kernel and do with it: time it on ``jobs`` of the sample, train the smallest of them once, or nothing more."""

    choice: str
    to: Literal["time", "train", "make"]
    jobs: int = 0
    seconds: float = 0.0


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What came of it: seconds a step if it was timed. ``unsupported`` and ``raised`` are words, empty if neither was."""

    seconds: float = 0.0
    unsupported: str = ""
    raised: str = ""


_asked: Final = msgspec.msgpack.Decoder(Asked)
_told: Final = msgspec.msgpack.Decoder(Told)
_encoder: Final = msgspec.msgpack.Encoder()


class Trial:
    """Tries kernels for one recipe; used as a context manager, which ends its process. ``skipped`` maps a kernel's name to the
    signal that ended the process in it.
    """

    def __init__(
        self, recipe: Recipe, parameters: Parameters, training: TrainingSpec, jobs: Sequence[LocalJob]
    ) -> None:
        self.skipped: dict[str, str] = {}
        self._recipe, self._parameters, self._training = recipe, parameters, training
        self._jobs = jobs
        self._process: WorkerProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def seconds_a_step(self, choice: Choice, jobs: int, seconds: float) -> float:
        """Return how long a step of ``choice`` takes, as ``kernel.choose.seconds_a_step`` there.

        Raises UnsupportedError if it cannot train the recipe, or ended its process now or before; EngineError with what the
        recipe raised.
        """
        return self._ask(choice, Asked(choice.text, "time", jobs, seconds))

    def must_make(self, choice: Choice) -> None:
        """Make a kernel that an earlier run chose. Raises UnsupportedError as ``seconds_a_step``."""
        self._ask(choice, Asked(choice.text, "make"))

    def must_train(self, choice: Choice) -> None:
        """Train one device with the kernel that remains. Raises EngineError naming the recipe if that ends its process too."""
        self._end()
        # Slow to import, and needed in the engine's own process anyway: the one forked from here on has it.
        importlib.import_module("hedgerow.simulations.kernel.reference")
        try:
            self._ask(choice, Asked(choice.text, "train"))
        except UnsupportedError as error:
            if choice.name not in self.skipped:
                raise
            raise EngineError(
                f"recipe {self._recipe.name}: training one device ends its process by {self.skipped[choice.name]}, with the "
                "reference kernel too, which is plain PyTorch: the fault is in the recipe's code, or in a library under it"
            ) from error

    def _ask(self, choice: Choice, asked: Asked) -> float:
        if choice.name in self.skipped:
            raise UnsupportedError(f"kernel {choice.name} ended its process before")
        process = self._process = self._process or self._forked()
        try:
            process.pipe.send_bytes(_encoder.encode(asked))
            told = _told.decode(process.pipe.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise self._skip(choice, process) from error
        if told.unsupported:
            raise UnsupportedError(told.unsupported)
        if told.raised:
            raise EngineError(
                f"recipe {self._recipe.name}: kernel {choice.text}, tried on a few devices: {told.raised}"
            )
        return told.seconds

    def _forked(self) -> WorkerProcess:
        give_back_free_memory()
        return WorkerProcess(self._answer, [])

    def _skip(self, choice: Choice, process: WorkerProcess) -> UnsupportedError:
        """Note that this kernel ended its process, and how."""
        how = process.ended_by()
        self._end()
        self.skipped[choice.name] = how
        log.warning(
            "recipe %s: kernel %s ended its process by %s and is not used",
            self._recipe.name,
            choice.name,
            how,
        )
        return UnsupportedError(f"kernel {choice.name} ended its process by {how}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(at_once=True)

    def _answer(self, data: bytes) -> bytes:
        """Do what is asked; in the forked process."""
        try:
            told = Told(self._carry_out(_asked.decode(data)))
        except UnsupportedError as error:
            told = Told(unsupported=str(error) or "unsupported")
        except Exception as error:  # noqa: BLE001 - a recipe is anybody's code, the run must hear what it said
            told = Told(raised=f"{type(error).__name__}: {error}")
        return _encoder.encode(told)

    def _carry_out(self, asked: Asked) -> float:
        kernel = read_choice(asked.choice).make(self._recipe, self._parameters, self._training, _CPU)
        if asked.to == "time":
            return seconds_a_step(kernel, self._jobs, self._training, asked.jobs, asked.seconds)
        if asked.to == "train":
            smallest = sorted((job for job in self._jobs if len(job.x)), key=lambda job: len(job.x))[:1]
            kernel.train(shortened(smallest, self._training), kernel.room(len(smallest)))
        return 0.0


def in_words(skipped: dict[str, str]) -> str:
    """Return what was skipped as a run's record keeps it, say ``explicit by SIGSEGV``."""
    return ", ".join(f"{name} by {how}" for name, how in sorted(skipped.items()))
