"""Who may ask: the headers decide before anything is read."""

from __future__ import annotations

import pytest

from hedgerow.edge_agent.local_api.guard import Denial, body_length, judge_source, judge_token

PORT = 8765


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_the_loopbacks_names_are_served(host: str) -> None:
    assert judge_source({"Host": host}, PORT) is None


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:8765",
        "localhost:8765, localhost:8765", "localhost:8765@evil", "[::1]", "::1:8765", "127.0.0.1:08765", "localhost:",
    ],
)  # fmt: skip
def test_other_hosts_are_refused(host: str) -> None:
    denial = judge_source({"Host": host}, PORT)

    assert denial is not None
    assert (denial.status, denial.reason) == (403, "host")


def test_without_a_port_only_port_80_is_meant() -> None:
    assert judge_source({"Host": "localhost"}, 80) is None


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8765", "https://[::1]", "http://localhost"]
)
def test_pages_of_this_machine_may_ask(origin: str) -> None:
    assert judge_source({"Host": "localhost:8765", "Origin": origin}, PORT) is None


@pytest.mark.parametrize(
    "origin",
    ["null", "", "https://evil.example", "http://localhost.evil.example", "file://", "http://evil@localhost.example:80",
     "http://localhost:8765@evil.example", "chrome-extension://localhost", "http://user@localhost:8765"],
)  # fmt: skip
def test_pages_from_elsewhere_may_not(origin: str) -> None:
    denial = judge_source({"Host": "localhost:8765", "Origin": origin}, PORT)

    assert denial is not None
    assert denial.reason == "origin"


def test_the_token_is_compared_whole() -> None:
    token = "t" * 43

    assert judge_token({"Authorization": f"Bearer {token}"}, token) is None
    assert judge_token({"Authorization": f"bearer  {token} "}, token) is None
    for given in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {token[:-1]}",
        f"Bearer {token}x",
        f"Basic {token}",
        "Bearer \xff",
    ):
        denial = judge_token({"Authorization": given}, token)
        assert denial is not None
        assert denial.status == 401
    assert judge_token({}, token) is not None


@pytest.mark.parametrize("text", ["", "-1", "+5", "5.0", "0x5", "5, 5", "٥", "9" * 13, " "])
def test_a_length_is_decimal_or_refused(text: str) -> None:
    refused = body_length({"Content-Length": text}, 1, 100)

    assert isinstance(refused, Denial)
    assert refused.status == 411


def test_lengths_are_bounded_and_unique() -> None:
    assert body_length({"Content-Length": "100"}, 1, 100) == 100
    too_large = body_length({"Content-Length": "101"}, 1, 100)
    assert isinstance(too_large, Denial)
    assert too_large.status == 413
    assert isinstance(body_length({"Content-Length": "5"}, 2, 100), Denial)
    assert isinstance(body_length({"Content-Length": "5", "Transfer-Encoding": "chunked"}, 1, 100), Denial)
