"""Updates that go well, or badly for no one's fault: cut connections, full disks, a server that is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.delivery import World, cut_after, instead

from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.result import ExitCode, decode_result
from hedgerow.edge_agent.updater.stage import stage
from hedgerow.edge_agent.updater.supervise import UpdaterProcess
from hedgerow.shared.messages import BundleTarget

BIG = {"model.onnx": os.urandom(600_000), "model.tflite": b"lite" * 100}


def test_a_new_version_is_staged_whole_and_served_after_the_switch(world: World) -> None:
    target = world.backend.release(files=BIG)
    result = world.update(target)

    assert (result.reason, result.exit_code) == ("staged", ExitCode.STAGED)
    folder = Path(result.folder)
    assert {name: (folder / name).read_bytes() for name in BIG} == BIG
    assert (folder / "manifest.json").stat().st_size + 600_400 == result.bytes_down
    world.serve(target)
    choice = world.slots.check()
    assert choice.installed is not None
    assert choice.installed.manifest_sha256 == target.manifest_sha256


def test_a_staged_version_is_not_fetched_again(world: World) -> None:
    target = world.backend.release()
    world.update(target)
    asked = len(world.app.requests)

    assert world.update(target).reason == "already-here"
    assert len(world.app.requests) == asked


def test_only_the_runtimes_that_the_board_has_are_fetched(world: World) -> None:
    target = world.backend.release(files=BIG)
    result = world.device.updater(runtimes=["litert"]).run(target)

    assert result.reason == "staged"
    assert not (Path(result.folder) / "model.onnx").exists()
    world.serve(target)
    assert world.slots.check().source == "champion"


def test_a_bundle_without_a_runtime_that_the_board_has_is_refused(world: World) -> None:
    target = world.backend.release(files={"model.onnx": b"x"})

    assert world.device.updater(runtimes=["litert"]).run(target).reason == "mismatch"


def test_cut_connections_are_resumed_where_they_broke(world: World) -> None:
    target = world.backend.release(files=BIG)
    world.app.on(r"model\.onnx$", cut_after(200_000, times=2))
    before = world.app.body_bytes
    result = world.update(target)

    assert result.reason == "staged"
    ranges = [asked for path, asked in world.app.requests if path.endswith("model.onnx")]
    assert len(ranges) == 3
    assert ranges[0] == ""
    assert all(asked.startswith("bytes=") for asked in ranges[1:])
    sent = world.app.body_bytes - before
    assert sent < 1.4 * 600_000


def test_a_killed_updater_goes_on_where_it_was(world: World) -> None:
    target = world.backend.release(files=BIG)
    reached = threading.Event()

    async def hang(app: Any, scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"600000")]}
        )
        await send({"type": "http.response.body", "body": BIG["model.onnx"][:300_000], "more_body": True})
        reached.set()
        await receive()
        await receive()

    world.app.on(r"model\.onnx$", hang)
    child = subprocess.Popen(world.device.updater().command(target), stdout=subprocess.PIPE)
    assert reached.wait(20)
    part = world.slots.incoming / "model.onnx.part"
    while not (part.exists() and part.stat().st_size >= 100_000):
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    world.app.rules.clear()
    result = world.update(target)

    assert result.reason == "staged"
    assert result.bytes_resumed >= 100_000
    assert (Path(result.folder) / "model.onnx").read_bytes() == BIG["model.onnx"]


def test_a_server_that_ignores_ranges_costs_a_restart_only(world: World) -> None:
    target = world.backend.release(files=BIG)

    async def whole(app: Any, scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(key, value) for key, value in scope["headers"] if key != b"range"]
        await app(scope, receive, send)

    folder = world.slots.prepare(target.manifest_sha256)
    (folder / "model.onnx.part").write_bytes(BIG["model.onnx"][:1000])
    world.app.on(r"model\.onnx$", whole)

    assert world.update(target).reason == "staged"


def test_a_partial_file_that_the_disk_changed_is_thrown_away_and_fetched_anew(world: World) -> None:
    target = world.backend.release(files=BIG)
    folder = world.slots.prepare(target.manifest_sha256)
    (folder / "model.onnx.part").write_bytes(b"\x00" * 1000)

    assert world.update(target).reason == "mismatch"
    assert world.update(target).reason == "staged"


def test_a_complete_file_that_the_disk_changed_is_noticed_before_it_is_sealed(world: World) -> None:
    target = world.backend.release(files=BIG)
    folder = world.slots.prepare(target.manifest_sha256)
    (folder / "model.onnx").write_bytes(b"\x00" * 600_000)

    result = world.update(target)
    assert result.reason == "mismatch"
    assert "not what was installed" in result.detail
    assert world.update(target).reason == "staged"


def test_a_server_that_fails_for_a_moment_is_asked_again(world: World) -> None:
    target = world.backend.release()
    calls: list[str] = []

    async def whole(app: Any, scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    broken = instead(503, b"")

    async def flaky(app: Any, scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await (broken if len(calls) in (1, 3) else whole)(app, scope, receive, send)

    world.app.on(r"(timestamp\.json|model\.onnx)$", flaky)

    assert world.update(target).reason == "staged"
    assert [path.rsplit(".", 2)[-2:] for path in calls] == [
        *([calls[0].rsplit(".", 2)[-2:]] * 2),
        *([["model", "onnx"]] * 2),
    ]


def test_a_server_that_is_gone_is_worth_another_try(world: World) -> None:
    target = world.backend.release()
    world.device.url = "https://127.0.0.1:9"
    result = world.refused(target, "unreachable")

    assert (result.exit_code, result.retry) == (ExitCode.TRANSPORT, True)


class Limited(UpdaterProcess):
    """Runs the updater where no file may grow beyond a size: a disk that fills in the middle of a write."""

    max_file_bytes = 100_000

    def command(self, target: BundleTarget) -> list[str]:
        script = (
            "import resource, runpy, sys; "
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({self.max_file_bytes}, {self.max_file_bytes})); "
            "runpy.run_module('hedgerow.edge_agent.updater', run_name='__main__')"
        )
        plain = super().command(target)
        return [plain[0], "-c", script, *plain[plain.index("--home") :]]


def test_a_disk_that_fills_during_the_download_is_told_and_cleaned(world: World) -> None:
    target = world.backend.release(files=BIG)
    result = Limited(world.device.home.path, world.device.url).run(target)

    assert (result.reason, result.exit_code, result.retry) == ("disk-full", ExitCode.STORAGE, True)
    assert "model.onnx" in result.detail
    assert not world.slots.incoming.exists()
    assert world.slots.check().source == "champion"
    assert world.update(target).reason == "staged"


def test_a_disk_that_is_full_for_metadata_is_told(world: World) -> None:
    class Tiny(Limited):
        max_file_bytes = 100

    target = world.backend.release()
    result = Tiny(world.device.home.path, world.device.url).run(target)

    assert result.reason == "disk-full"
    assert world.slots.check().source == "champion"
    assert world.update(target).reason == "staged"


def test_a_disk_with_too_little_room_is_told_before_the_download(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = world.backend.release(files=BIG)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 1000))

    with pytest.raises(UpdateError, match="1000 bytes free") as caught:
        stage(world.device.home, world.device.url, target)
    assert caught.value.reason == "disk-full"
    assert not [path for path, _ in world.app.requests if path.endswith("model.onnx")]


def test_a_second_updater_leaves_the_first_alone(world: World) -> None:
    target = world.backend.release()
    lock = world.device.home.tuf_metadata.parent / "updater.lock"
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = world.update(target)

    assert (result.reason, result.retry) == ("busy", True)
    assert world.update(target).reason == "staged"


def test_an_agent_that_stops_ends_its_updater_and_starts_no_other(world: World) -> None:
    target = world.backend.release()
    reached = threading.Event()

    async def hang(app: Any, scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await receive()
        await receive()

    world.app.on(r"timestamp\.json$", hang)
    updater = world.device.updater()
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(updater.run(target).reason))
    thread.start()
    assert reached.wait(20)
    updater.stop()
    thread.join(10)

    assert results == ["stopped"]
    assert updater.run(target).reason == "stopped"


def test_an_updater_that_never_ends_is_ended(world: World) -> None:
    target = world.backend.release()

    async def hang(app: Any, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    world.app.on(r"timestamp\.json$", hang)

    assert world.device.updater(deadline_s=1.0).run(target).reason == "too-slow"


class Lying(UpdaterProcess):
    """A child that is not the updater."""

    script = ""

    def command(self, target: BundleTarget) -> list[str]:
        return [sys.executable, "-c", self.script]


@pytest.mark.parametrize(
    "script",
    [
        "import os; os.abort()",
        "print('hello')",
        "raise SystemExit(0)",
        'print(\'{"reason":"staged","model":"pump","version":2,"manifest_sha256":"x"}\')',
        'print(\'{"reason":"staged","model":"pump","version":1,"manifest_sha256":"a"}\'); raise SystemExit(1)',
        'print(\'{"reason":"nonsense","model":"pump","version":1,"manifest_sha256":"a"}\')',
        "print('x' * 100000)",
    ],
)
def test_a_child_whose_word_and_exit_code_do_not_fit_is_not_believed(tmp_path: Path, script: str) -> None:
    updater = Lying(tmp_path, "https://127.0.0.1:9")
    updater.script = script
    result = updater.run(BundleTarget("pump", 1, "a"))

    assert (result.reason, result.ok) == ("crashed", False)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [
            "--home",
            "x",
            "--url",
            "http://h",
            "--target-json",
            '{"model":"m","version":1,"manifest_sha256":"a"}',
        ],
        ["--home", "x", "--url", "https://h", "--target-json", "{}"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "hedgerow.edge_agent.updater", *arguments]
    ended = subprocess.run(command, capture_output=True, check=False)

    assert ended.returncode == ExitCode.USAGE
    assert b"error" in ended.stderr


def test_the_result_is_one_line_of_json(world: World) -> None:
    target = world.backend.release()
    ended = subprocess.run(world.device.updater().command(target), capture_output=True, check=False)

    assert ended.returncode == 0
    assert ended.stdout.count(b"\n") == 1
    assert decode_result(ended.stdout).seconds > 0
    assert msgspec.json.decode(ended.stdout)["reason"] == "staged"


def test_neither_tuf_nor_https_libraries_load_in_the_agent() -> None:
    script = (
        "import sys, hedgerow.edge_agent.updater.supervise, hedgerow.edge_agent.slots; "
        "heavy = {'tuf', 'securesystemslib', 'urllib3', 'httpx', 'cryptography', 'numpy'} & set(sys.modules); "
        "raise SystemExit(f'loaded: {heavy}' if heavy - {'numpy'} else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
