"""Making a kernel by name."""

from __future__ import annotations

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.explicit import ExplicitKernel
from hedgerow.simulations.kernel.protocol import Kernel, KernelName
from hedgerow.simulations.kernel.stacked import GROUP, StackedKernel


def make_kernel(
    name: KernelName,
    recipe: Recipe,
    parameters: Parameters,
    training: TrainingSpec,
    device: str = "cpu",
    *,
    group: int = GROUP,
) -> Kernel:
    """Return the kernel ``name`` for ``recipe`` with the job's (checked) ``parameters`` and ``training`` block.

    ``reference`` trains any recipe; it and ``explicit`` work on the CPU alone. ``stacked`` takes ``group`` jobs at once.
    Raises UnsupportedError when a kernel cannot train this recipe, or not on this ``device``.
    """
    if name == "reference" and device == "cpu":
        # Opacus is slow to import; the other kernels do without it.
        from hedgerow.simulations.kernel.reference import ReferenceKernel

        return ReferenceKernel(recipe, parameters, training)
    if name == "explicit" and device == "cpu":
        return ExplicitKernel(recipe, parameters, training)
    if name == "stacked":
        return StackedKernel(recipe, parameters, training, device, group)
    raise UnsupportedError(f"there is no kernel {name!r} on {device!r}")
