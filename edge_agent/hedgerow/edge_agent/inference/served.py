"""One bundle, loaded: answers samples one at a time, counts latencies, and can be retired under load."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.bundle_folder import BundleFolder
from hedgerow.edge_agent.inference.histogram import Histogram
from hedgerow.edge_agent.inference.loader import Loaded
from hedgerow.edge_agent.inference.prediction import Answer, Source
from hedgerow.edge_agent.inference.tasks import Task
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import LatencyHistogram

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


class RetiredError(Exception):
    """This bundle was retired while a caller was on its way to it: ask the chain again."""


class Served:
    """A bundle with its runtime and task. Safe for several threads: one lock covers the shared buffers."""

    def __init__(self, bundle: BundleFolder, loaded: Loaded, task: Task) -> None:
        manifest, runtime = bundle.manifest, loaded.runtime
        self.manifest = manifest
        self.skipped = loaded.skipped
        self.source = Source(
            manifest.model,
            manifest.version,
            bundle.identity,
            runtime.name,
            runtime.precision,
            runtime.provider,
        )
        self._runtime = runtime
        self._task = task
        self._lock = threading.Lock()
        self._retired = False
        self._histogram = Histogram()
        self._failures = 0

    @property
    def ready(self) -> bool:
        """Whether it can answer: fitted where it must be."""
        return self._task.ready

    @property
    def failures(self) -> int:
        """Samples that it could not answer."""
        return self._failures

    def fit(self, samples: Array) -> None:
        """Fit on raw normal samples ``(n, *shape)``. Raises ContentError, or RetiredError."""
        with self._lock:
            self._check_here()
            self._task.fit(samples, self._predict)

    def answer(self, sample: Array, live: bool) -> Answer:
        """Return the answer for one raw sample; ``live`` as for ``Task.answer``.

        Raises ContentError if the model's output is not finite or the engine fails, RetiredError.
        """
        start = time.perf_counter_ns()
        with self._lock:
            self._check_here()
            try:
                output = self._runtime.infer(self._task.prepare(sample))
                if not np.isfinite(output).all():
                    raise ContentError("the model answered with values that are not finite")
                answer = self._task.answer(sample, output, live)
            except ContentError:
                self._failures += 1
                raise
            self._histogram.add(max(1, (time.perf_counter_ns() - start) // 1000))
            return answer

    def latency(self) -> LatencyHistogram:
        """Return how long answers took, from raw sample to answer, waiting for other callers included."""
        with self._lock:
            return self._histogram.snapshot()

    def retire(self) -> None:
        """Wait for the answer in progress, keep what live samples have moved, then free the engine."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            self._task.keep()
            self._runtime.close()

    def _predict(self, x: Floats) -> Floats:
        return np.concatenate([self._runtime.infer(x[n : n + 1]).copy() for n in range(len(x))])

    def _check_here(self) -> None:
        if self._retired:
            raise RetiredError
