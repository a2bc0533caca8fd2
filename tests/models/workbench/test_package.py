from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from tests.support.bundles import FOR_UNTRAINED, package_request
from torch import nn

from hedgerow.models.export.vector import to_vector
from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.models.recipes.anomaly import RECIPE as ANOMALY
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.models.recipes.digits import DigitsCnn
from hedgerow.models.workbench.messages import PackageResult
from hedgerow.models.workbench.modules import Work
from hedgerow.models.workbench.package import package
from hedgerow.shared.bundle import Manifest, check_artefact, decode_manifest, sha256_hex
from hedgerow.shared.errors import ContentError, StorageError

RECIPES: dict[str, Recipe] = {"anomaly": ANOMALY, "digits": DIGITS}


@pytest.fixture(scope="module", params=RECIPES)
def work(request: pytest.FixtureRequest) -> Work:
    return Work(RECIPES[request.param], {})


@pytest.fixture(scope="module")
def digits() -> Work:
    return Work(DIGITS, {})


def model_of(work: Work, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    return to_vector(work.recipe.build(work.parameters)).tobytes()


def packed(work: Work, folder: Path, **changes: object) -> PackageResult:
    return package(package_request(work.recipe.name, model_of(work), folder, **changes), work)


def manifest_in(folder: Path) -> Manifest:
    return decode_manifest((folder / "manifest.json").read_bytes())


def test_a_bundle_holds_what_its_manifest_promises(work: Work, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bundle"
    result = packed(work, folder)
    manifest = manifest_in(folder)

    assert result.accepted
    assert result.manifest_sha256 == sha256_hex((folder / "manifest.json").read_bytes())
    assert sorted(path.name for path in folder.iterdir()) == [
        "bom.json",
        "card.md",
        "manifest.json",
        "model.float32.onnx",
        "model.float32.tflite",
        "model.int8.onnx",
        "model.int8.tflite",
    ]
    assert result.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    for artefact in manifest.artefacts:
        check_artefact(artefact, (folder / artefact.file).read_bytes())
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"], "nothing is left beside it"


def test_the_manifest_says_where_the_model_comes_from(work: Work, tmp_path: Path) -> None:
    packed(work, tmp_path / "b", channels=("x", "y"))
    manifest = manifest_in(tmp_path / "b")

    assert (manifest.model, manifest.version, manifest.task) == ("a-model", 4, work.recipe.task)
    assert manifest.lineage.model_sha256 == sha256_hex(model_of(work))
    assert manifest.lineage.feature_set == work.recipe.feature_set(work.parameters)
    assert manifest.lineage.created.endswith("+00:00")
    wanted = msgspec.json.encode(work.recipe.scoring(work.parameters), order="sorted")
    assert msgspec.json.encode(manifest.scoring, order="sorted") == wanted
    assert manifest.labels == work.recipe.labels(work.parameters)
    assert manifest.channels == ("x", "y")


def test_golden_samples_are_the_recipes_with_the_modules_answers(work: Work, tmp_path: Path) -> None:
    packed(work, tmp_path / "b")
    manifest, public = manifest_in(tmp_path / "b"), work.public
    expected = work.predict(public.x[public.golden])

    assert len(manifest.golden) == len(public.golden)
    for n, golden in enumerate(manifest.golden):
        np.testing.assert_array_equal(np.frombuffer(golden.input, "<f4"), public.x[public.golden[n]].ravel())
        np.testing.assert_array_equal(np.frombuffer(golden.output, "<f4"), expected[n].ravel())
        assert 0 < golden.tolerance["float32"] < golden.tolerance["int8"]


def test_the_score_table_has_every_number_of_every_artefact(work: Work, tmp_path: Path) -> None:
    result = packed(work, tmp_path / "b")
    manifest = manifest_in(tmp_path / "b")
    metric = work.recipe.metric

    assert result.scores == manifest.scores
    assert metric in manifest.scores
    for artefact in manifest.artefacts:
        prefix = f"{artefact.runtime}.{artefact.precision}"
        assert manifest.scores[f"{prefix}.size_bytes"] == artefact.size_bytes
        assert manifest.scores[f"{prefix}.latency_p50_us"] > 0
        assert manifest.scores[f"{prefix}.{metric}"] == pytest.approx(manifest.scores[metric], abs=0.3)


def test_a_candidate_that_fails_the_gate_is_refused_with_reasons_and_not_written(
    work: Work, tmp_path: Path
) -> None:
    result = packed(
        work,
        tmp_path / "b",
        gate=msgspec.structs.replace(FOR_UNTRAINED, max_artefact_bytes=1000, max_latency_us=0.001),
    )

    assert not result.accepted
    assert (result.folder, result.manifest_sha256) == ("", "")
    assert len(result.refusals) == 8
    assert any(
        re.match(r"litert\.int8\.size: \d+ where the limit is 1000", reason) for reason in result.refusals
    )
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_worse_than_the_champion_is_refused(digits: Work, tmp_path: Path) -> None:
    result = packed(digits, tmp_path / "b", champion_scores={"accuracy": 0.97})

    assert [reason.split(":")[0] for reason in result.refusals] == ["champion.metric-drop"]


@pytest.mark.parametrize("change", ["short", "odd", "nan"])
def test_a_model_that_does_not_fit_is_refused(digits: Work, tmp_path: Path, change: str) -> None:
    good = model_of(digits)
    bad = {"short": good[:-4], "odd": good[:-1], "nan": np.float32(np.nan).tobytes() + good[4:]}[change]

    with pytest.raises(ContentError):
        package(package_request("digits-cnn", bad, tmp_path / "b"), digits)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_written_over(digits: Work, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()

    with pytest.raises(StorageError, match="exists already"):
        packed(digits, tmp_path / "b")


class Curved(DigitsCnn):
    """Digits with an operator that TFLite export does not know."""

    def build(self, parameters: Parameters) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 10))


def test_a_model_that_tflite_cannot_express_becomes_onnx_only_and_the_card_says_so(tmp_path: Path) -> None:
    result = packed(Work(Curved(), {}), tmp_path / "b")

    assert result.accepted
    assert {artefact.runtime for artefact in manifest_in(tmp_path / "b").artefacts} == {"onnxruntime"}
    assert "TFLite export: node" in (tmp_path / "b" / "card.md").read_text()


def test_the_card_tells_people_the_privacy_and_the_gate(work: Work, tmp_path: Path) -> None:
    packed(work, tmp_path / "b")
    card = (tmp_path / "b" / "card.md").read_text()

    assert card.startswith("# a-model version 4\n")
    assert "No differential privacy is claimed" in card
    assert "| onnxruntime.int8.agreement |" in card
    assert "failed" not in card


def test_the_bill_of_materials_is_cyclonedx_of_a_model(work: Work, tmp_path: Path) -> None:
    packed(work, tmp_path / "b")
    bill = json.loads((tmp_path / "b" / "bom.json").read_text())
    manifest = manifest_in(tmp_path / "b")

    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    uuid.UUID(bill["serialNumber"].removeprefix("urn:uuid:"))
    subject = bill["metadata"]["component"]
    assert (subject["type"], subject["name"], subject["version"]) == (
        "machine-learning-model",
        "a-model",
        "4",
    )
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert len(parts) == len(bill["components"]), "references are unique"
    for artefact in manifest.artefacts:
        assert parts[artefact.file]["hashes"] == [{"alg": "SHA-256", "content": artefact.sha256}]
    references = {ref for item in bill["dependencies"] for ref in [item["ref"], *item["dependsOn"]]}
    assert references <= {*parts, "model"}
    assert parts[subject["modelCard"]["modelParameters"]["datasets"][0]["ref"]]["type"] == "data"
