"""Runs the updater as a child process and reads what it came to. Part of the agent: tuf is never imported here."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hedgerow.edge_agent.updater.result import MAX_RESULT_BYTES, Reason, UpdateResult, decode_result
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import BundleTarget

DEADLINE_S = 3600.0


class UpdaterProcess:
    """One update at a time, in a child process. ``run`` blocks its thread; ``stop`` ends it from another."""

    def __init__(
        self, home: Path, url: str, *, runtimes: Sequence[str] = (), deadline_s: float = DEADLINE_S
    ) -> None:
        self._home = home
        self._url = url
        self._runtimes = tuple(runtimes)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, target: BundleTarget) -> UpdateResult:
        """Fetch, verify and stage ``target``, after a running update; never raises for what child or server do."""
        with self._turn:
            return self._run(target)

    def stop(self, deadline_s: float = 2.0) -> None:
        """End a running update and refuse new ones; what was downloaded is resumed later."""
        with self._lock:
            self._stopped = True
            child = self._running
        if child is None:
            return
        child.terminate()
        try:
            child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            child.kill()

    def command(self, target: BundleTarget) -> list[str]:
        """Return the child's command line."""
        asked = msgspec.json.encode(target).decode()
        named = [part for runtime in self._runtimes for part in ("--runtime", runtime)]
        module = "hedgerow.edge_agent.updater"
        # -P: the working directory must not be able to shadow an installed module.
        return [
            sys.executable,
            "-P",
            "-m",
            module,
            "--home",
            str(self._home),
            "--url",
            self._url,
            "--target-json",
            asked,
            *named,
        ]

    def _run(self, target: BundleTarget) -> UpdateResult:
        with self._lock:
            if self._stopped:
                return _ended("stopped", target, "the agent is stopping")
            child = self._running = subprocess.Popen(
                self.command(target), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        try:
            output, errors = child.communicate(timeout=self._deadline_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return _ended("too-slow", target, f"not done after {self._deadline_s:g} s")
        finally:
            with self._lock:
                self._running = None
        return self._read(target, child.returncode, output, errors)

    def _read(self, target: BundleTarget, code: int, output: bytes, errors: bytes) -> UpdateResult:
        if self._stopped:
            return _ended("stopped", target, "the agent is stopping")
        try:
            result = decode_result(output[-MAX_RESULT_BYTES:])
        except ContentError:
            told = errors[-800:].decode("utf-8", "replace").strip()
            return _ended("crashed", target, f"the updater ended with {code} and no result: {told}")
        asked = (target.model, target.version, target.manifest_sha256)
        if code != result.exit_code or (result.model, result.version, result.manifest_sha256) != asked:
            return _ended(
                "crashed", target, f"the updater ended with {code}, its result says {result.reason}"
            )
        return result


def _ended(reason: Reason, target: BundleTarget, detail: str) -> UpdateResult:
    return UpdateResult(reason, target.model, target.version, target.manifest_sha256, detail[:2000])
