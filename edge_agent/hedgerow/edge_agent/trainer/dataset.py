"""A device's own samples as examples for one job: which ones (fixed at its first round), and read through the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.models.recipe import Parameters, Recipe, TrainingSet
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.privacy.entries import SampleRange
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    from hedgerow.shared.profile import DeviceProfile


class Batch(Protocol):
    """Samples in the order of their ids, ``arrays`` ``(n, *shape)``."""

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids, int64 ``(n,)``."""

    @property
    def arrays(self) -> npt.NDArray[np.generic]:
        """The tensors."""

    @property
    def labels(self) -> Sequence[int | None]:
        """A label or None each."""


class Samples(Protocol):
    """The part of the sample store that training reads."""

    def specs(self) -> dict[str, TensorSpec]:
        """Return the known specs by name."""

    def count(self, spec: str) -> int:
        """Return how many samples of ``spec`` there are."""

    def last_id(self, spec: str) -> int:
        """Return the newest id, 0 if there is none."""

    def read(
        self, spec: str, *, after_id: int = 0, up_to_id: int | None = None, limit: int | None = None
    ) -> Batch:
        """Return the samples with ids in ``(after_id, up_to_id]``, oldest first."""


def snapshot(samples: Samples, spec: TensorSpec, max_samples: int) -> SampleRange:
    """Return the newest ``max_samples`` samples of ``spec`` as a range of ids.

    Raises DeclinedError if there are none, or the store holds another tensor by that name.
    """
    found = samples.specs().get(spec.name)
    if found is None or samples.count(spec.name) == 0:
        raise DeclinedError(Code.NO_SAMPLES, f"no sample of {spec.name!r} is stored")
    if (found.dtype, found.shape) != (spec.dtype, spec.shape):
        raise DeclinedError(
            Code.NO_SAMPLES,
            f"samples of {spec.name!r} are {found.dtype} {found.shape}; "
            f"the job wants {spec.dtype} {spec.shape}",
        )
    up_to = samples.last_id(spec.name)
    everything = samples.count(spec.name) <= max_samples
    ids = samples.read(spec.name, up_to_id=up_to, limit=1 if everything else None).ids[-max_samples:]
    return SampleRange(spec.name, int(ids[0]) - 1, up_to)


def load(
    samples: Samples,
    chosen: SampleRange,
    recipe: Recipe,
    parameters: Parameters,
    profile: DeviceProfile | None,
    *,
    private: bool,
) -> TrainingSet:
    """Return the chosen samples as the recipe's examples, float32, contiguous.

    Raises DeclinedError if none is left (old samples make room for new ones), or, with privacy, if the recipe makes
    more examples than there are samples: one sample must be at most one example.
    """
    batch = samples.read(chosen.spec, after_id=chosen.after_id, up_to_id=chosen.up_to_id)
    if len(batch.ids) == 0:
        raise DeclinedError(Code.NO_SAMPLES, f"the samples of {chosen.spec!r} chosen for this job are gone")
    try:
        made = recipe.training_set(batch.arrays, batch.labels, profile, parameters, private)
    except ContentError as error:
        raise DeclinedError(Code.NO_SAMPLES, str(error)) from error
    except ConfigError as error:
        raise DeclinedError(Code.UNSUPPORTED, str(error)) from error
    if private and len(made.x) > len(batch.ids):
        raise DeclinedError(Code.UNSUPPORTED, f"recipe {recipe.name!r} makes several examples of one sample")
    if len(made.x) == 0:
        raise DeclinedError(Code.NO_SAMPLES, f"no sample of {chosen.spec!r} is fit to train on")
    y = None if made.y is None else np.ascontiguousarray(made.y, np.int64)
    return TrainingSet(np.ascontiguousarray(made.x, np.float32), y)
