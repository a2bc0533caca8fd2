"""The workbench's answers: one method per request."""

from __future__ import annotations

import logging
import os

import msgspec
import torch

from hedgerow.models.export.vector import n_parameters, to_vector
from hedgerow.models.recipe import recipe_hash
from hedgerow.models.workbench.messages import (
    DescribeRequest,
    Description,
    Failure,
    InitialRequest,
    Model,
    PackageRequest,
    Request,
    Response,
    ScoreRequest,
    Scores,
)
from hedgerow.models.workbench.modules import Works
from hedgerow.models.workbench.package import package
from hedgerow.shared.errors import HedgerowError

log = logging.getLogger(__name__)


class Service:
    """Answers requests, one at a time."""

    def __init__(self) -> None:
        torch.set_num_threads(max(1, min(4, (os.cpu_count() or 1) // 2)))
        self._works = Works()
        self._decoder = msgspec.msgpack.Decoder(Request)

    def answer(self, data: bytes) -> bytes:
        """Return the encoded answer to an encoded request; an error becomes a ``Failure``."""
        try:
            response = self._handle(self._decoder.decode(data))
        except HedgerowError as error:
            response = Failure(type(error).__name__, str(error))
        except Exception as error:  # process boundary: the caller must get an answer to every request
            log.exception("a workbench request failed")
            response = Failure("HedgerowError", f"the workbench failed: {type(error).__name__}: {error}")
        return msgspec.msgpack.encode(response)

    def _handle(self, request: Request) -> Response:
        match request:
            case DescribeRequest():
                return self._describe(request)
            case InitialRequest():
                return self._initial(request)
            case ScoreRequest():
                work = self._works.get(request.recipe, request.parameters)
                work.load(request.model)
                return Scores(work.recipe.score(work.predict, work.public, work.parameters))
            case PackageRequest():
                return package(request, self._works.get(request.recipe, request.parameters))

    def _describe(self, request: DescribeRequest) -> Description:
        work = self._works.get(request.recipe, request.parameters)
        recipe, parameters = work.recipe, work.parameters
        return Description(
            recipe=recipe.name,
            recipe_hash=recipe_hash(recipe),
            recipe_version=recipe.version,
            task=recipe.task,
            metric=recipe.metric,
            higher_is_better=recipe.higher_is_better,
            n_parameters=n_parameters(work.module),
            parameters=parameters,
            input=recipe.input_spec(parameters),
            output=recipe.output_spec(parameters),
            feature_set=recipe.feature_set(parameters),
        )

    def _initial(self, request: InitialRequest) -> Model:
        work = self._works.get(request.recipe, request.parameters)
        torch.manual_seed(request.seed)
        module = work.recipe.build(work.parameters)
        return Model(to_vector(module).astype("<f4", copy=False).tobytes())
