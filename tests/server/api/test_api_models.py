"""The pydantic models are the views: same fields, same types, same values."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.operator import device, event, job, model, round_view

from hedgerow.server.api.models import pydantic_of
from hedgerow.server.monitor.views import AlertView, RolloutView

VIEWS = [
    device(),
    job(),
    round_view(1),
    model(),
    event(1),
    RolloutView("r", "m", 1, "all", "running", 1, {"serving": 2}),
    AlertView("A", "warning", "s", "t", 1),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_view_passes_through_its_model_unchanged(view: msgspec.Struct) -> None:
    plain = msgspec.to_builtins(view)

    back = pydantic_of(type(view)).model_validate(plain).model_dump(mode="json")

    assert msgspec.json.decode(msgspec.json.encode(back)) == msgspec.json.decode(msgspec.json.encode(plain))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_every_field_is_there_and_required_alike(view: msgspec.Struct) -> None:
    fields = {f.encode_name: f.required for f in msgspec.structs.fields(type(view))}

    assert {
        name: field.is_required() for name, field in pydantic_of(type(view)).model_fields.items()
    } == fields


def test_a_missing_field_is_refused() -> None:
    plain = msgspec.to_builtins(job())
    del plain["state"]

    with pytest.raises(ValueError, match="state"):
        pydantic_of(type(job())).model_validate(plain)
