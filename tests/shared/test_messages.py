"""Messages are read by decoders that exist before any thread does, and every message type has one."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
import textwrap
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared import messages

PARTS = {"Alarm", "AlarmCleared", "BundleReport", "ChannelShare", "GapRecord", "JobAssignment", "LatencyHistogram", "Notice", "ReportedState"}  # fmt: skip
"""Structs that only travel inside a message."""
KINDS: list[Any] = sorted(messages._DECODERS, key=lambda kind: kind.__name__)


def structs() -> set[str]:
    members = inspect.getmembers(messages, inspect.isclass)
    return {
        name
        for name, kind in members
        if issubclass(kind, msgspec.Struct) and kind.__module__ == messages.__name__
    }


def test_every_message_has_its_decoder_from_the_start() -> None:
    assert structs() - PARTS == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_decode_error(kind: Any, data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        assert isinstance(messages.decode(data, kind), kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fields_of_a_newer_peer_are_passed_over(kind: Any) -> None:
    with pytest.raises(msgspec.ValidationError) as missing:
        messages.decode(b"{}", kind)
    with pytest.raises(msgspec.ValidationError) as with_more:
        messages.decode(b'{"of_a_newer_version": [1]}', kind)

    assert str(missing.value) == str(with_more.value)


def test_what_is_no_message_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        messages.decode(b"{}", messages.Notice)


def test_many_threads_may_read_their_first_message_at_once() -> None:
    code = """
        import sys, threading
        sys.setswitchinterval(1e-6)
        from hedgerow.shared import messages
        together = threading.Barrier(8)
        def read():
            together.wait()
            for kind in messages._DECODERS:
                try:
                    messages.decode(b"{}", kind)
                except ValueError:
                    pass
        threads = [threading.Thread(target=read) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
