"""What a worker does with an order, whether it is a process of its own or not."""

from __future__ import annotations

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import StorageError
from hedgerow.simulations.kernel.protocol import Kernel
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.keeping import Keeping
from hedgerow.simulations.lean.messages import (
    Failed,
    Order,
    PredictOrder,
    Reply,
    ScoreOrder,
    Trained,
    TrainOrder,
    encoder,
    orders,
)
from hedgerow.simulations.lean.scoring import Scoring
from hedgerow.simulations.lean.training import Training


class Worker:
    """Carries out orders with one kernel. Not safe for two threads at once."""

    def __init__(
        self, world: World, recipe: Recipe, kernel: Kernel, keeping: Keeping, shared: Shared
    ) -> None:
        self._training = Training(world, kernel, keeping, shared)
        self._scoring = Scoring(world, recipe, kernel, keeping, shared)

    def answer(self, data: bytes) -> bytes:
        """Return the encoded reply to an encoded order; an exception comes back as words."""
        order = orders.decode(data)
        try:
            reply = self._carry_out(order)
        except Exception as error:  # noqa: BLE001 - a recipe is anybody's code, the run must hear what it said
            reason = f"{_about(order)}: {type(error).__name__}: {error}"
            reply = Failed(reason, isinstance(error, StorageError))
        return encoder.encode(reply)

    def _carry_out(self, order: Order) -> Reply:
        match order:
            case TrainOrder():
                outcomes = [(unit, self._training.train(unit, order)) for unit in order.units]
                return Trained(
                    tuple(place for unit, _ in outcomes for place in unit.places),
                    tuple(outcome for _, found in outcomes for outcome in found),
                )
            case PredictOrder():
                return self._scoring.predict(order)
            case ScoreOrder():
                return self._scoring.score(order)


def _about(order: Order) -> str:
    match order:
        case TrainOrder():
            tasks = [task for unit in order.units for task in unit.tasks]
            named = ", ".join(str(task.device) for task in tasks[:5]) + (", …" if len(tasks) > 5 else "")
            return f"training of devices {named} in round {tasks[0].round}"
        case PredictOrder():
            return "evaluation on the held-out set"
        case ScoreOrder():
            return f"evaluation on devices after round {order.round}"
