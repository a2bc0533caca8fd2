"""The signing keys' files: made for their owner, read with suspicion, damaged ones named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hedgerow.server.delivery.files import link_or_copy
from hedgerow.server.delivery.keys import MAX_KEY_FILE_BYTES, ROLES, KeyFolder
from hedgerow.shared.errors import StorageError


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def only(keys: KeyFolder) -> Path:
    (path,) = keys.folder.iterdir()
    return path


@pytest.mark.parametrize("role", ROLES)
def test_a_new_key_signs_and_is_found_again_by_its_id(keys: KeyFolder, role: str) -> None:
    made = keys.create(role)

    (found,) = keys.signers(role, [made.public_key.keyid])

    assert found.public_key == made.public_key
    made.public_key.verify_signature(found.sign(b"metadata"), b"metadata")
    assert stat.S_IMODE(only(keys).stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700


def test_a_key_serves_its_own_role_alone(keys: KeyFolder) -> None:
    made = keys.create("timestamp")

    for role in set(ROLES) - {"timestamp"}:
        assert keys.signers(role, [made.public_key.keyid]) == []


def test_keys_that_were_forgotten_are_gone_and_forgetting_twice_is_no_error(keys: KeyFolder) -> None:
    made, kept = keys.create("root"), keys.create("root")
    for _ in range(2):
        keys.forget("root", made.public_key.keyid)

    found = keys.signers("root", [made.public_key.keyid, kept.public_key.keyid])
    assert [signer.public_key.keyid for signer in found] == [kept.public_key.keyid]


@pytest.mark.parametrize("flip", [0x01, 0x04, 0x80])
def test_a_key_file_with_any_byte_changed_is_named_or_is_still_that_key(keys: KeyFolder, flip: int) -> None:
    made = keys.create("snapshot")
    path = only(keys)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        try:
            (found,) = keys.signers("snapshot", [made.public_key.keyid])
        except StorageError as error:
            assert str(path) in str(error), place
        else:
            assert found.public_key == made.public_key, place


@pytest.mark.parametrize("length", [0, 1, 30, 60, 100])
def test_a_key_file_that_is_cut_off_is_named(keys: KeyFolder, length: int) -> None:
    made = keys.create("snapshot")
    only(keys).write_bytes(only(keys).read_bytes()[:length])

    with pytest.raises(StorageError, match="not a private key that can sign"):
        keys.signers("snapshot", [made.public_key.keyid])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_key_that_others_may_read_or_write_is_refused_with_the_remedy(keys: KeyFolder, mode: int) -> None:
    made = keys.create("targets")
    only(keys).chmod(mode)

    with pytest.raises(StorageError, match=rf"mode {mode:o}\); chmod 600 it"):
        keys.signers("targets", [made.public_key.keyid])


def foreign(kind: str) -> bytes:
    made = {
        "another ed25519": ed25519.Ed25519PrivateKey.generate(),
        "p-256": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "locked": ed25519.Ed25519PrivateKey.generate(),
    }[kind]
    lock = BestAvailableEncryption(b"secret") if kind == "locked" else NoEncryption()
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", ["another ed25519", "p-256", "rsa"])
def test_another_key_under_the_name_is_refused(keys: KeyFolder, kind: str) -> None:
    made = keys.create("targets")
    only(keys).write_bytes(foreign(kind))

    with pytest.raises(StorageError, match="the key inside is another one; restore it from a backup"):
        keys.signers("targets", [made.public_key.keyid])


def test_a_key_behind_a_password_is_refused_as_one_that_cannot_sign(keys: KeyFolder) -> None:
    made = keys.create("targets")
    only(keys).write_bytes(foreign("locked"))

    with pytest.raises(StorageError, match="not a private key that can sign"):
        keys.signers("targets", [made.public_key.keyid])


def test_of_a_file_without_end_a_bounded_piece_is_read(keys: KeyFolder) -> None:
    made = keys.create("targets")
    only(keys).write_bytes(b"x" * (MAX_KEY_FILE_BYTES + 1) + only(keys).read_bytes())

    with pytest.raises(StorageError, match="not a private key"):
        keys.signers("targets", [made.public_key.keyid])


def test_linking_shares_the_content_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    source, path = tmp_path / "blob", tmp_path / "deep" / "er" / "model.onnx"
    source.write_bytes(b"model")
    for _ in range(2):
        link_or_copy(source, path)

    assert path.stat().st_ino == source.stat().st_ino
    assert [left.name for left in path.parent.iterdir()] == ["model.onnx"]


def test_linking_replaces_what_was_there(tmp_path: Path) -> None:
    source, path = tmp_path / "blob", tmp_path / "model.onnx"
    source.write_bytes(b"new")
    path.write_bytes(b"old")

    link_or_copy(source, path)

    assert path.read_bytes() == b"new"


def test_what_is_not_there_cannot_be_linked_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"model\.onnx: cannot link .*none: No such file"):
        link_or_copy(tmp_path / "none", tmp_path / "model.onnx")

    assert list(tmp_path.iterdir()) == []
