"""Every attack on delivery that is known, tried on the real updater process over real HTTPS.

After each, the bundle that served still serves.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tests.support.delivery import Backend, Certificates, World, https_server, instead
from tuf.api.metadata import Metadata

from hedgerow.edge_agent.updater.result import ExitCode
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.shared.messages import BundleTarget

DAY_S = 86_400.0


def overwrite(path: Path, data: bytes) -> None:
    """Replace a published file without touching the registry's blob that shares its disk space."""
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.tflite"])
def test_a_tampered_file_of_the_same_length_is_refused(world: World, name: str) -> None:
    target = world.backend.release()
    path = world.target_file(2, name)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    overwrite(path, bytes(data))

    result = world.refused(target, "mismatch")
    assert result.exit_code == ExitCode.UNTRUSTED
    assert "SHA-256" in result.detail
    assert not list(world.slots.folder.rglob("*.part"))


def test_a_longer_file_is_refused_at_the_signed_length(world: World) -> None:
    target = world.backend.release()
    path = world.target_file(2, "model.onnx")
    overwrite(path, path.read_bytes() + b"x")

    assert "more than the signed" in world.refused(target, "mismatch").detail


def test_a_shorter_file_is_never_taken(world: World) -> None:
    target = world.backend.release()
    path = world.target_file(2, "model.onnx")
    overwrite(path, path.read_bytes()[:-1])

    world.refused(target, "unreachable", "not-listed")


def test_endless_data_stops_at_the_signed_length(world: World) -> None:
    target = world.backend.release()
    world.app.on(r"model\.onnx$", instead(200, b"x" * 4096, endless=True))

    world.refused(target, "mismatch")
    assert world.app.body_bytes < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "name", ["timestamp.json", r"\d+\.snapshot\.json", r"\d+\.targets\.json", r"\d+\.root\.json"]
)
def test_endless_metadata_stops_at_its_bound(world: World, name: str) -> None:
    target = world.backend.release()
    world.app.on(rf"metadata/{name}$", instead(200, b" " * 65536, endless=True))

    world.refused(target, "untrusted")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff\x00", b"[" * 10_000, b'{"signed": {"_type": "timestamp"}}']
)
def test_garbage_metadata_is_refused(world: World, body: bytes) -> None:
    target = world.backend.release()
    world.app.on(r"timestamp\.json$", instead(200, body))

    world.refused(target, "untrusted")


def test_a_replay_of_the_old_validly_signed_repository_is_refused(world: World) -> None:
    shutil.copytree(world.metadata, world.folder / "old")
    target = world.backend.release()
    assert world.update(target).reason == "staged"
    world.slots.discard_incoming()
    shutil.rmtree(world.metadata)
    shutil.copytree(world.folder / "old", world.metadata)

    assert "BadVersionNumber" in world.refused(target, "untrusted").detail


def test_an_order_for_an_older_version_is_refused(world: World) -> None:
    second = world.backend.release()
    assert world.update(second).ok
    world.serve(second)

    result = world.update(world.first)
    assert (result.reason, result.exit_code) == ("rollback-refused", ExitCode.ROLLBACK)


def test_an_order_for_an_older_version_that_claims_leave_is_refused_unless_it_is_signed(world: World) -> None:
    second, third = world.backend.release(), world.backend.release()
    assert world.update(third).ok
    world.serve(third)
    claimed = msgspec.structs.replace(second, rollback_ok=True)
    assert world.update(claimed).reason == "rollback-refused"

    world.backend.repository.allow_rollback("pump", 2)
    assert world.update(claimed).reason == "staged"


def test_the_devices_own_previous_version_comes_back_without_a_byte(world: World) -> None:
    second = world.backend.release()
    assert world.update(second).ok
    world.serve(second)
    asked = len(world.app.requests)
    result = world.update(msgspec.structs.replace(world.first, rollback_ok=True))

    assert (result.reason, result.bytes_down) == ("already-here", 0)
    assert len(world.app.requests) == asked
    world.slots.activate(world.first.manifest_sha256)
    installed = world.slots.check().installed
    assert installed is not None
    assert installed.version == 1


def test_a_version_number_issued_twice_is_refused(world: World) -> None:
    world.refused(msgspec.structs.replace(world.first, manifest_sha256="f" * 64), "rollback-refused")


def forge(path: Path, change: Callable[[Metadata[Any]], None], signers: list[CryptoSigner]) -> None:
    forged: Metadata[Any] = Metadata.from_file(str(path))
    change(forged)
    forged.signatures.clear()
    for signer in signers:
        forged.sign(signer, append=True)
    path.write_bytes(forged.to_bytes())


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_signed_by_a_strangers_key_is_refused(world: World, role: str) -> None:
    target = world.backend.release()
    state = world.backend.repository.state()
    version = getattr(state, role).version
    name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"

    def raise_version(forged: Metadata[Any]) -> None:
        forged.signed.unrecognized_fields["forged"] = True

    forge(world.metadata / name, raise_version, [CryptoSigner.generate_ed25519()])
    world.refused(target, "untrusted")


def test_a_root_that_the_old_root_did_not_sign_is_refused(world: World) -> None:
    other = Backend(world.folder / "other")
    other.repository.rotate("targets")
    shutil.copy(other.repository.folder / "metadata" / "2.root.json", world.metadata / "2.root.json")
    other.close()

    world.refused(BundleTarget("pump", 2, "a" * 64), "untrusted")


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_mix_of_two_publications_is_refused_also_by_a_fresh_device(world: World, role: str) -> None:
    old = getattr(world.backend.repository.state(), role).version
    target = world.backend.release()
    new = getattr(world.backend.repository.state(), role).version
    shutil.copy(world.metadata / f"{old}.{role}.json", world.metadata / f"{new}.{role}.json")
    shutil.rmtree(world.device.home.tuf_metadata)

    world.refused(target, "untrusted")


def test_a_frozen_repository_blocks_new_installs_only(world: World) -> None:
    world.backend.moved_s = -2 * DAY_S
    target = world.backend.release()

    result = world.refused(target, "expired")
    assert "Expired" in result.detail
    assert (result.exit_code, result.retry) == (ExitCode.UNTRUSTED, True)
    world.backend.moved_s = 0.0
    world.backend.repository.resign()
    assert world.update(target).reason == "staged"


def test_a_revoked_targets_key_that_still_signs_is_refused(world: World) -> None:
    secrets = world.backend.home / "secrets" / "tuf"
    shutil.copytree(secrets, world.folder / "stolen")
    world.backend.repository.rotate("targets")
    target = world.backend.release()
    (stolen,) = (world.folder / "stolen").glob("targets.*")
    signers = KeyFolder(world.folder / "stolen").signers("targets", [stolen.name.split(".")[1]])
    version = world.backend.repository.state().targets.version
    thief = TufRepository(world.backend.repository.folder, KeyFolder(secrets))
    state = thief.state()
    forge(world.metadata / f"{version}.targets.json", lambda _forged: None, signers)
    data = (world.metadata / f"{version}.targets.json").read_bytes()
    # The thief holds the online snapshot and timestamp keys too: only the root stands in the way.
    thief._commit_snapshot(state.root, version, data, state.snapshot, state.timestamp)

    assert "targets was signed by 0/1 keys" in world.refused(target, "untrusted").detail


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_legitimate_change_of_keys_is_followed(world: World, role: str) -> None:
    world.backend.repository.rotate(role)
    target = world.backend.release()

    assert world.update(target).reason == "staged"


def test_several_changes_of_keys_are_followed_by_a_device_that_slept(world: World) -> None:
    for role in ("root", "targets", "root", "timestamp"):
        world.backend.repository.rotate(role)
    shutil.rmtree(world.device.home.tuf_metadata)

    assert world.update(world.backend.release()).reason == "staged"


def test_a_change_of_keys_in_the_middle_of_a_refresh_is_no_refusal(world: World) -> None:
    target = world.backend.release()
    rotated: list[str] = []

    async def rotate_first(app: Any, scope: Any, receive: Any, send: Any) -> None:
        if not rotated:
            world.backend.repository.rotate("timestamp")
            rotated.append("timestamp")
            world.backend.release("digits")
        await app(scope, receive, send)

    world.app.on(r"timestamp\.json$", rotate_first)

    assert world.update(target).reason == "staged"
    assert [path for path, _ in world.app.requests if path.endswith("timestamp.json")][1:]


def test_a_yanked_bundle_is_not_installed(world: World) -> None:
    target = world.backend.release()
    world.backend.repository.yank("pump", 2)

    assert "never published, or yanked" in world.refused(target, "not-listed").detail


def test_another_manifest_than_the_desired_one_is_refused(world: World) -> None:
    world.backend.release()

    world.refused(BundleTarget("pump", 2, "e" * 64), "mismatch")


@pytest.mark.parametrize("sha", ["", "xyz", "A" * 64, "../" * 10])
def test_an_order_without_a_hash_is_refused(world: World, sha: str) -> None:
    assert world.update(BundleTarget("pump", 2, sha)).reason == "usage"


@pytest.mark.parametrize("model", ["../../etc", "", "PUMP"])
def test_an_order_for_an_impossible_model_writes_nothing(world: World, model: str) -> None:
    before = sorted(world.device.home.path.rglob("*"))
    result = world.update(BundleTarget(model, 2, "a" * 64))

    assert not result.ok
    assert sorted(world.device.home.path.rglob("*")) == before


def test_a_manifest_that_names_another_model_is_refused_though_it_is_signed(world: World) -> None:
    target = world.backend.release("digits")
    state = world.backend.repository.state()
    names = {
        name: file for name, file in state.targets.targets.items() if name.startswith("bundles/digits/1/")
    }

    for name, file in names.items():
        renamed = name.replace("digits/1", "pump/7")
        moved = type(file)(file.length, file.hashes, renamed, file.unrecognized_fields)
        state.targets.targets[renamed] = moved
    state.targets.version += 1
    world.backend.repository._commit(state.root, state.targets, state.snapshot, state.timestamp)
    folder = world.backend.repository.folder / "targets" / "bundles"
    shutil.copytree(folder / "digits" / "1", folder / "pump" / "7")

    result = world.refused(BundleTarget("pump", 7, target.manifest_sha256), "mismatch")
    assert "of digits 1, not of pump 7" in result.detail


def test_a_clock_before_the_last_known_time_neither_refreshes_nor_installs(world: World) -> None:
    target = world.backend.release()
    tomorrow_us = time.time_ns() // 1000 + int(DAY_S * 1e6)
    world.device.home.clock.write_text(json.dumps({"last_known_us": tomorrow_us}))
    asked = len(world.app.requests)

    result = world.refused(target, "clock-behind")
    assert (result.exit_code, result.retry) == (ExitCode.CLOCK, True)
    assert len(world.app.requests) == asked


def test_a_clock_that_the_last_known_time_bears_out_is_believed(world: World) -> None:
    world.device.home.clock.write_text(json.dumps({"last_known_us": time.time_ns() // 1000}))

    assert world.update(world.backend.release()).reason == "staged"


def test_a_server_with_another_ca_gets_nothing(world: World) -> None:
    target = world.backend.release()
    stranger = Certificates(world.folder / "stranger")
    with https_server(world.app, stranger) as url:
        world.device.url = url
        asked = len(world.app.requests)

        assert world.refused(target, "unreachable").retry
        assert len(world.app.requests) == asked


def test_a_device_without_a_certificate_of_the_fleet_gets_nothing(world: World) -> None:
    target = world.backend.release()
    stranger = Certificates(world.folder / "stranger")
    world.device.home.key.write_bytes(stranger.device_key)
    world.device.home.certificate.write_bytes(stranger.device_cert)

    world.refused(target, "unreachable")
    assert not [path for path, _ in world.app.requests if "/2/" in path]


def test_a_redirect_is_not_followed(world: World) -> None:
    target = world.backend.release()

    async def redirect(app: Any, scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 302,
                "headers": [(b"location", b"https://127.0.0.1:1/")],
            }
        )
        await send({"type": "http.response.body", "body": b""})

    world.app.on(r"timestamp\.json$", redirect)
    world.refused(target, "unreachable")


def test_a_compressed_answer_is_taken_as_the_bytes_it_is_and_never_unpacked(world: World) -> None:
    content = os.urandom(5000)  # packing makes it longer, so that it is refused at the signed length
    target = world.backend.release(files={"model.onnx": content})

    async def packed(app: Any, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": gzip.compress(content)})

    world.app.on(r"model\.onnx$", packed)
    assert "more than the signed" in world.refused(target, "mismatch").detail


def test_a_home_without_identity_says_to_join_first(world: World) -> None:
    target = world.backend.release()
    world.device.home.certificate.unlink()

    assert "join the fleet first" in world.refused(target, "usage").detail


@pytest.mark.parametrize("root", [b"", b"{}", b"garbage"])
def test_a_home_without_a_root_of_trust_trusts_nothing(world: World, root: bytes) -> None:
    target = world.backend.release()
    world.device.home.tuf_root.write_bytes(root)

    world.refused(target, "untrusted")
