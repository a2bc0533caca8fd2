"""Which random draws the trials of a sweep have in common, and which are each trial's own.

In common, by the scenario's and the job's seeds, so that trials differ by their fields and by as little else as can be
(common random numbers): the examples and how they are divided, what is held out, device classes, who is there, slow, lost or
byzantine and what the last ones send, the first model, the order of batches, and who is drawn where privacy does not count on it.

A trial's own: all that its ε is computed from, for a sweep composes its trials as mechanisms that are independent given the
data. That is the noise; with mode ``example`` the Poisson batches on the device; with a central mode the coins by which devices
are drawn. Were coins in common, a device would be in a round of all trials or of none, and the composed ε would be too small.
"""

from __future__ import annotations

from hedgerow.shared.job import CENTRAL_MODES, Job
from hedgerow.shared.privacy.noise import SeededStream


def noise_seed(seed: int, trial: str) -> int:
    """Return the seed of what privacy draws: a scenario's own outside sweeps, one for each ``trial`` in them (below 2⁶³)."""
    if not trial:
        return seed
    return int(SeededStream.of(seed, "trial", trial).words(1)[0] >> 1)


def cohort_seed(job: Job, seed: int, trial: str) -> int:
    """Return the seed by which devices are drawn: the trial's own where ε counts on who was drawn."""
    return noise_seed(seed, trial) if job.privacy.mode in CENTRAL_MODES else seed
