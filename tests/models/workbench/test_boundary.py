"""The workbench's edge: whatever bytes come in, one answer goes out; frames cut anywhere; works kept and let go."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.models.workbench import frames, modules
from hedgerow.models.workbench.bom import bill_of_materials
from hedgerow.models.workbench.messages import (
    DescribeRequest,
    Description,
    Failure,
    InitialRequest,
    Model,
    PackageResult,
    Request,
    Response,
    ScoreRequest,
)
from hedgerow.models.workbench.modules import Work, Works
from hedgerow.models.workbench.service import Service
from hedgerow.shared.bundle import Artefact, GateCheck, Lineage, Manifest, PrivacyReport, sha256_hex
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.specs import TensorSpec

SMALL = {"inputs": 6, "hidden": [3], "classes": 3}
N_SMALL = 6 * 3 + 3 + 3 * 3 + 3


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


def ask(service: Service, data: bytes) -> Response:
    answer: Response = msgspec.msgpack.decode(service.answer(data), type=Response)
    return answer


def encoded(request: Request) -> bytes:
    return msgspec.msgpack.encode(request)


@settings(max_examples=80)
@given(data=st.binary(max_size=60))
def test_any_bytes_get_an_answer_that_says_they_failed(service: Service, data: bytes) -> None:
    assert isinstance(ask(service, data), Failure)


@settings(max_examples=60)
@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_request_with_a_bit_turned_gets_an_answer(service: Service, at: int, bit: int) -> None:
    data = bytearray(encoded(DescribeRequest("mlp", SMALL)))
    data[at % len(data)] ^= 1 << bit

    assert isinstance(ask(service, bytes(data)), Failure | Description)


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (DescribeRequest("nothing", {}), "ConfigError", "nothing"),
        (DescribeRequest("mlp", {"depth": 3}), "ConfigError", "unknown parameter depth"),
        (DescribeRequest("mlp", {"inputs": 0}), "ConfigError", "inputs"),
        (ScoreRequest("mlp", SMALL, b""), "ContentError", f"0 values where the recipe builds {N_SMALL}"),
        (ScoreRequest("mlp", SMALL, b"\0" * 7), "ContentError", "7 bytes"),
        (ScoreRequest("mlp", SMALL, b"\0" * 4 * (N_SMALL + 1)), "ContentError", f"{N_SMALL + 1} values"),
        (ScoreRequest("mlp", SMALL, b"\0\0\xc0\x7f" * N_SMALL), "ContentError", "non-finite"),
        (ScoreRequest("mlp", SMALL, b"\0\0\x80\x7f" * N_SMALL), "ContentError", "non-finite"),
    ],
)
def test_a_request_that_cannot_be_met_says_whose_mistake_it_is(
    service: Service, request_: Request, kind: str, said: str
) -> None:
    answer = ask(service, encoded(request_))

    assert isinstance(answer, Failure)
    assert answer.kind == kind
    assert said in answer.message


def test_a_refused_model_does_not_stay_in_the_module(service: Service) -> None:
    first = ask(service, encoded(InitialRequest("mlp", SMALL, 1)))
    assert isinstance(first, Model)
    scores = ask(service, encoded(ScoreRequest("mlp", SMALL, first.data)))
    bad = np.frombuffer(first.data, "<f4").copy()
    bad[-1] = np.nan
    assert isinstance(ask(service, encoded(ScoreRequest("mlp", SMALL, bad.tobytes()))), Failure)

    assert ask(service, encoded(ScoreRequest("mlp", SMALL, first.data))) == scores


@pytest.mark.parametrize("recipe", ["mlp", "image-cnn", "digits-cnn", "anomaly-autoencoder"])
def test_a_description_is_what_the_first_model_turns_out_to_be(service: Service, recipe: str) -> None:
    about = ask(service, encoded(DescribeRequest(recipe, {})))
    model = ask(service, encoded(InitialRequest(recipe, {}, 7)))

    assert isinstance(about, Description)
    assert isinstance(model, Model)
    assert len(model.data) == 4 * about.n_parameters
    assert np.isfinite(np.frombuffer(model.data, "<f4")).all()
    assert json.loads(json.dumps(about.parameters, allow_nan=False)) == about.parameters
    assert ask(service, encoded(DescribeRequest(recipe, about.parameters))) == about


PARTS = st.lists(st.binary(max_size=40), max_size=6)


@given(PARTS)
def test_frames_come_out_as_they_went_in(parts: list[bytes]) -> None:
    pipe = io.BytesIO()
    for part in parts:
        frames.write_frame(pipe, part)
    pipe.seek(0)

    assert [frames.read_frame(pipe) for _ in parts] == parts
    assert frames.read_frame(pipe) is None


@given(PARTS.filter(bool), st.integers(1, 10_000))
def test_a_pipe_cut_anywhere_ends_cleanly_between_frames_only(parts: list[bytes], cut: int) -> None:
    whole = io.BytesIO()
    ends = [0]
    for part in parts:
        frames.write_frame(whole, part)
        ends.append(whole.tell())
    kept = ends[-1] - cut % ends[-1] - 1
    pipe = io.BytesIO(whole.getvalue()[:kept])
    read: list[bytes] = []
    try:
        while (frame := frames.read_frame(pipe)) is not None:
            read.append(frame)
    except ContentError as error:
        assert kept not in ends
        assert "ended" in str(error)  # a clean end is the other way
    else:
        assert kept in ends
    assert read == parts[: len(read)]


def test_a_length_at_the_bound_is_announced_and_one_more_is_not() -> None:
    assert frames.length_of(frames.header(frames.MAX_FRAME_BYTES)) == frames.MAX_FRAME_BYTES
    for refuse in (frames.header, lambda n: frames.length_of(frames.HEADER.pack(n))):
        with pytest.raises(ContentError, match=str(frames.MAX_FRAME_BYTES + 1)):
            refuse(frames.MAX_FRAME_BYTES + 1)


def test_the_last_few_works_are_kept_by_what_was_asked_and_the_oldest_goes() -> None:
    works = Works()
    made = [works.get("mlp", {**SMALL, "classes": n}) for n in range(3, 3 + modules._KEPT)]

    assert works.get("mlp", {"classes": 3, "hidden": [3], "inputs": 6}) is made[0], (
        "order of keys does not matter"
    )
    newest = works.get("mlp", {**SMALL, "classes": 99})
    assert works.get("mlp", {**SMALL, "classes": 3}) is made[0], "asked for a moment ago"
    assert works.get("mlp", {**SMALL, "classes": 4}) is not made[1], "that was the oldest"
    assert works.get("mlp", {**SMALL, "classes": 99}) is newest
    assert len(works._kept) == modules._KEPT


def test_a_work_that_cannot_be_is_not_kept() -> None:
    works = Works()
    for _ in range(2):
        with pytest.raises(ConfigError):
            works.get("mlp", {"inputs": -1})
    assert not works._kept


def test_predictions_are_the_same_in_whatever_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from hedgerow.models.recipe import find_recipe

    work = Work(find_recipe("mlp"), SMALL)
    x = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)
    whole = work.predict(x)
    monkeypatch.setattr(modules, "_BATCH", 4)

    np.testing.assert_allclose(work.predict(x), whole, rtol=1e-6, atol=1e-6)


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema": 1, "model": "pump", "version": 3, "task": "anomaly",
        "input": TensorSpec("x", "float32", (4, 2), "window"), "output": TensorSpec("y", "float32", (4, 2), "window"),
        "recipe": "r", "parameters": {}, "golden": (), "gate": (GateCheck("g", True, 1.0, 0.5),), "scores": {"auroc": 0.9},
        "artefacts": tuple(Artefact(f"m{n}.onnx", "onnxruntime", "int8", sha256_hex(bytes([n])), 1) for n in range(2)),
        "lineage": Lineage("j", "n", 1, "r", "h", sha256_hex(b""), "f", created="2026-01-02T03:04:05Z"),
        "privacy": PrivacyReport("example", "-", "-", "-", 2.5, 1e-5, "-", "-", (), ()),
    }  # fmt: skip
    return Manifest(**(values | changes))


@given(model=TEXT, recipe=TEXT, scores=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=3))
def test_a_bill_is_json_of_any_names_and_the_same_bytes_each_time(
    model: str, recipe: str, scores: dict[str, float]
) -> None:
    made = manifest(model=model, recipe=recipe, scores=scores)
    bill = json.loads(bill_of_materials(made))

    assert bill_of_materials(made) == bill_of_materials(made)
    assert bill["metadata"]["component"]["name"] == model
    metrics = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {m["type"]: float(m["value"]) for m in metrics} == scores


def test_a_bill_names_every_artefact_by_hash_and_refers_to_nothing_that_is_not_in_it() -> None:
    made = manifest()
    bill = json.loads(bill_of_materials(made))
    files = {c["name"]: c["hashes"] for c in bill["components"] if c["type"] == "file"}
    known = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert files == {a.file: [{"alg": "SHA-256", "content": a.sha256}] for a in made.artefacts}
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= known
    datasets = bill["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert {d["ref"] for d in datasets} <= known
    assert len(known) == len(bill["components"]) + 1, "a reference is one thing"


@pytest.mark.parametrize(
    ("epsilon", "delta", "shown"),
    [
        (None, None, ("infinite", "none")),
        (2.5, 1e-5, ("2.5", "1e-05")),
        (0.1 + 0.2, None, (repr(0.1 + 0.2), "none")),
    ],
)
def test_a_bill_says_what_privacy_was_claimed_to_the_last_digit(
    epsilon: float | None, delta: float | None, shown: tuple[str, str]
) -> None:
    privacy = PrivacyReport("example", "-", "-", "-", epsilon, delta, "-", "-", (), ())
    bill = json.loads(bill_of_materials(manifest(privacy=privacy)))
    facts = {p["name"]: p["value"] for p in bill["metadata"]["component"]["properties"]}

    assert (facts["hedgerow:epsilon"], facts["hedgerow:delta"]) == shown


def test_another_model_or_version_has_another_serial_number() -> None:
    serials = {
        json.loads(bill_of_materials(manifest(**changes)))["serialNumber"]
        for changes in ({}, {"version": 4}, {"model": "fan"})
    }

    assert len(serials) == 3
    assert all(serial.startswith("urn:uuid:") for serial in serials)


@pytest.mark.parametrize(("refusals", "accepted"), [((), True), (("too slow",), False)])
def test_a_candidate_is_accepted_unless_something_was_refused(
    refusals: tuple[str, ...], accepted: bool
) -> None:
    assert PackageResult("f", "0" * 64, 1, {}, (), refusals).accepted is accepted
