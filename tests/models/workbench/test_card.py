from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests.support.bundles import write_bundle

from hedgerow.models.workbench.bom import bill_of_materials
from hedgerow.models.workbench.card import model_card
from hedgerow.shared.bundle import GateCheck, Manifest, PrivacyReport

PRIVATE = PrivacyReport(
    "example", "window", "add or remove one", "Poisson, on the device", 7.25, 1e-5, "PLD", "the operating system",
    ("update",), ("loss", "count"), ("each device's own claim",),
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    made = write_bundle(tmp_path_factory.mktemp("c") / "b", kinds=[("onnxruntime", "int8")], version=6)
    scores = {"explained": 0.75, "onnxruntime.int8.explained": 0.74, "onnxruntime.int8.latency_p50_us": 12.5}
    gate = (GateCheck("onnxruntime.int8.agreement", True, 0.99, 0.9),)
    return msgspec.structs.replace(made, scores=scores, gate=gate, privacy=PRIVATE)


def test_the_card_states_the_claim_with_everything_it_rests_on(manifest: Manifest) -> None:
    card = model_card(manifest)

    assert "epsilon = 7.25, delta = 1e-05, by PLD." in card
    assert "- Mode: example; unit: window; neighbours: add or remove one" in card
    assert "- Sampling: Poisson, on the device; noise from: the operating system" in card
    assert "- Released: update; withheld: loss, count" in card
    assert "- each device's own claim" in card
    assert "infinite" not in card


def test_the_card_shows_what_a_central_claim_is_reckoned_from_and_where_its_ledger_ends(
    manifest: Manifest,
) -> None:
    figures = {"sampling_rate": 0.1, "epsilon_replace": 10.5163}
    central = msgspec.structs.replace(PRIVATE, figures=figures, ledger_head="ab" * 32)

    card = model_card(msgspec.structs.replace(manifest, privacy=central))

    assert "- Figures: epsilon_replace 10.5163, sampling_rate 0.1\n" in card
    assert f"- Ledger: the chain of charges ends in {'ab' * 32}\n" in card
    assert "Figures" not in model_card(manifest)
    assert "Ledger" not in model_card(manifest)


def test_the_card_has_one_row_per_artefact_with_its_numbers(manifest: Manifest) -> None:
    rows = [line for line in model_card(manifest).splitlines() if line.startswith("| model.int8.onnx |")]

    assert len(rows) == 1
    assert rows[0].split(" | ")[2:] == ["12.5", "nan", "0.74 |"], (
        "a number that was not measured is not made up"
    )


def test_the_card_shows_a_failed_check_as_failed(manifest: Manifest) -> None:
    bad = msgspec.structs.replace(manifest, gate=(GateCheck("size", False, 9.0, 5.0),))

    assert "| size | 9 | 5 | failed |" in model_card(bad)


def test_notes_come_last_and_only_where_there_are_any(manifest: Manifest) -> None:
    assert model_card(manifest, ("left out: X",)).endswith("## Notes\n\n- left out: X\n")
    assert "## Notes" not in model_card(manifest)


def test_the_bill_carries_privacy_and_lineage_as_properties(manifest: Manifest) -> None:
    subject = json.loads(bill_of_materials(manifest))["metadata"]["component"]
    facts = {item["name"]: item["value"] for item in subject["properties"]}

    assert facts["hedgerow:epsilon"] == "7.25"
    assert facts["hedgerow:job"] == "job"
    assert subject["modelCard"]["modelParameters"]["approach"] == {"type": "self-supervised"}


def test_the_bill_is_the_same_for_the_same_manifest_and_another_for_another_version(
    manifest: Manifest, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(manifest, version=7)

    assert bill_of_materials(manifest) == bill_of_materials(manifest)
    serials = {json.loads(bill_of_materials(one))["serialNumber"] for one in (manifest, other)}
    assert len(serials) == 2
