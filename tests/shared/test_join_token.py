"""Join tokens: what a person copies from one screen to another, and what a server keeps of it."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.join_token import JoinToken, new_token, parse_token, secret_hash

HEX = "0123456789abcdef"
URL_SAFE = string.ascii_letters + string.digits + "-_"
TOKENS = st.builds(
    JoinToken,
    id=st.text(HEX, min_size=8, max_size=8),
    secret=st.text(URL_SAFE, min_size=32, max_size=32),
    ca_pin=st.text(HEX, min_size=64, max_size=64),
)


@given(TOKENS, st.text(" \t\r\n", max_size=5), st.text(" \t\r\n", max_size=5))
def test_every_token_comes_back_through_copying(token: JoinToken, before: str, after: str) -> None:
    assert parse_token(before + token.text() + after) == token
    assert len(token.text()) == 111


@given(TOKENS)
def test_a_token_can_be_typed_in_a_shell_without_quotes(token: JoinToken) -> None:
    assert set(token.text()) <= set(URL_SAFE + ".")


@given(TOKENS, st.integers(0, 110))
def test_a_token_that_is_cut_off_or_has_a_hole_is_none(token: JoinToken, place: int) -> None:
    text = token.text()
    for changed in (text[:place], text[place + 1 :], text[:place] + text[place + 1 :]):
        with pytest.raises(ConfigError, match=r"no join token: expected hrj1\.ID\.SECRET\.PIN"):
            parse_token(changed)


@given(TOKENS, st.integers(0, 111), st.sampled_from([" ", "\n", "\u00a0", "\u200b", "é", "٣", "\x00", "."]))
def test_a_token_with_something_slipped_in_is_none_unless_it_is_space_around(
    token: JoinToken, place: int, slipped: str
) -> None:
    text = token.text()[:place] + slipped + token.text()[place:]
    if text.strip() == token.text():
        assert parse_token(text) == token
    else:
        with pytest.raises(ConfigError):
            parse_token(text)


@given(TOKENS)
def test_neither_printing_nor_an_error_shows_a_secret(token: JoinToken) -> None:
    assume(token.secret not in token.ca_pin)
    for shown in (repr(token), str(token), f"{token}", f"{[token]}"):
        assert token.secret not in shown
    with pytest.raises(ConfigError) as error:
        parse_token(token.text() + "x")
    assert token.secret not in str(error.value)


@pytest.mark.parametrize("length", [limits.MAX_TOKEN_BYTES + 1, 10**6])
def test_a_text_too_long_for_a_token_is_not_even_looked_through(length: int) -> None:
    with pytest.raises(ConfigError, match=f"longer than {limits.MAX_TOKEN_BYTES} characters"):
        parse_token(" " * length)


@given(st.text(URL_SAFE, min_size=32, max_size=32), st.text(URL_SAFE, min_size=32, max_size=32))
def test_what_is_kept_of_a_secret_tells_two_apart_and_is_no_secret(one: str, other: str) -> None:
    assert (secret_hash(one) == secret_hash(other)) == (one == other)
    assert one not in secret_hash(one)
    assert len(secret_hash(one)) == 64


def test_new_tokens_are_of_the_operating_systems_making(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def random(n: int) -> bytes:
        asked.append(n)
        return bytes(n)

    monkeypatch.setattr("secrets.token_bytes", random)
    new_token("a" * 64)

    assert sum(asked) * 8 >= 192, "bits of secret"


def test_two_tokens_of_one_fleet_share_its_pin_alone() -> None:
    one, other = new_token("a" * 64), new_token("a" * 64)

    assert one.ca_pin == other.ca_pin
    assert one.secret != other.secret
    assert not {*one.secret.split("."), one.id} & {*other.secret.split("."), other.id}
