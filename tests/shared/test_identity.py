from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.identity import RESERVED_NAMES, check_device_name, device_uri, spki_pin
from hedgerow.shared.join_token import new_token, parse_token, secret_hash


@pytest.mark.parametrize("name", ["a", "pump-1", "0", "a" * 63, "x--y"])
def test_plain_names_are_allowed(name: str) -> None:
    assert check_device_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "a_b", "a.b", "a b", "a" * 64, "ä", "a\n", "../x", "a/b", "a\x00", "٣"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ContentError, match="device name"):
        check_device_name(name)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ContentError, match="reserved"):
        check_device_name(name)


@given(st.text(max_size=80))
def test_an_allowed_name_is_safe_in_paths_topics_and_uris(name: str) -> None:
    try:
        check_device_name(name)
    except ContentError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 1 <= len(name) <= 63
    assert device_uri(name) == f"hedgerow://device/{name}"


def test_pin_is_sha256_of_the_key() -> None:
    assert spki_pin(b"key") == hashlib.sha256(b"key").hexdigest()


def test_token_round_trips_and_has_its_length() -> None:
    token = new_token("ab" * 32)

    assert len(token.text()) == 111
    assert parse_token(f"  {token.text()}\n") == token


def test_tokens_differ() -> None:
    made = {new_token("0" * 64).secret for _ in range(100)}

    assert len(made) == 100
    assert all(len(secret) == 32 for secret in made)


def test_token_does_not_show_its_secret_when_printed() -> None:
    token = new_token("0" * 64)

    assert token.secret not in repr(token)
    assert token.secret not in f"{token}"


def test_server_keeps_the_hash_of_the_secret() -> None:
    assert secret_hash("abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hrj1",
        "hrj2.00000000." + "a" * 32 + "." + "0" * 64,
        "hrj1.0000000." + "a" * 32 + "." + "0" * 64,
        "hrj1.0000000G." + "a" * 32 + "." + "0" * 64,
        "hrj1.00000000." + "a" * 31 + "." + "0" * 64,
        "hrj1.00000000." + "a" * 31 + "+." + "0" * 64,
        "hrj1.00000000." + "a" * 32 + "." + "0" * 63,
        "hrj1.00000000." + "a" * 32 + "." + "A" * 64,
        "hrj1.00000000." + "a" * 32 + "." + "0" * 64 + ".x",
        "hrj1.00000000." + "a" * 32 + "." + "0" * 64 + "\nhrj1",
        "x" * 100_000,
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no join token"):
        parse_token(text)


@given(st.text(max_size=300))
def test_any_text_is_a_token_or_refused_without_being_repeated(text: str) -> None:
    try:
        token = parse_token(text)
    except ConfigError as error:
        assert len(text) < 20 or text not in str(error)
    else:
        assert token.text() == text.strip()


@given(st.integers(0, 110), st.characters(codec="utf-8"))
def test_a_token_with_one_character_changed_is_another_token_or_none(place: int, character: str) -> None:
    token = new_token("0" * 64)
    changed = token.text()[:place] + character + token.text()[place + 1 :]
    if changed == token.text():
        return
    with contextlib.suppress(ConfigError):
        assert parse_token(changed) != token
