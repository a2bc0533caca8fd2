"""The supervisor over real child processes: starts, reports, restarts, stops, and takes none along when it dies."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hedgerow.edge_agent.trainer.restart import RestartPolicy
from hedgerow.edge_agent.trainer.supervisor import TrainerSupervisor, trainer_command, trainer_environment

WAIT_S = 60.0
SLEEPER = "import sys; sys.stdin.read()"
STUBBORN = (
    "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN); threading.Event().wait(60)"
)
QUICK = RestartPolicy(first_delay_s=0.01, longest_delay_s=0.02, max_failures=3)


class Watched:
    """A supervisor whose children run ``code``; starts are told by each child through a pipe."""

    def __init__(self, folder: Path, code: str, policy: RestartPolicy = QUICK) -> None:
        self.exits: queue.Queue[tuple[str, int]] = queue.Queue()
        self.fifo = folder / "starts"
        os.mkfifo(self.fifo)
        self.reader = os.fdopen(os.open(self.fifo, os.O_RDWR), "rb", buffering=0)
        hello = f"import os; f = open({str(self.fifo)!r}, 'w'); f.write(f'{{os.getpid()}}\\n'); f.close()\n"
        self.supervisor = TrainerSupervisor(
            folder,
            lambda job, exit_code: self.exits.put((job, exit_code)),
            command=lambda job: [sys.executable, "-c", hello + code, job],
            policy=policy,
        )
        self.supervisor.start()

    def started(self) -> int:
        """Wait for the next start; return its process id."""
        line = b""
        while not line.endswith(b"\n"):
            line += self.reader.read(1) or b""
        return int(line)

    def ended(self) -> tuple[str, int]:
        return self.exits.get(timeout=WAIT_S)

    def close(self) -> None:
        self.supervisor.stop(1.0)
        self.reader.close()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(code: str, policy: RestartPolicy = QUICK) -> Watched:
        made.append(Watched(tmp_path, code, policy))
        return made[-1]

    yield make
    for watched in made:
        watched.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT_S / 0.02)):
        if condition():
            return
        waited.wait(0.02)
    raise AssertionError("did not happen in time")


def test_a_wanted_job_gets_a_trainer_and_an_unwanted_one_loses_it(watch: Callable[..., Watched]) -> None:
    watched = watch(SLEEPER)
    assert watched.supervisor.state() == "idle"

    watched.supervisor.want({"job"})
    pid = watched.started()
    wait_until(lambda: watched.supervisor.running() == {"job": pid})
    assert watched.supervisor.state() == "running"
    watched.supervisor.want(set())

    wait_until(lambda: not watched.supervisor.running())
    assert not is_alive(pid)
    assert watched.exits.empty()
    assert watched.supervisor.state() == "idle"


def test_a_killed_trainer_is_reported_and_started_again(watch: Callable[..., Watched]) -> None:
    watched = watch(SLEEPER)
    watched.supervisor.want({"job"})
    first = watched.started()

    os.kill(first, signal.SIGKILL)

    assert watched.ended() == ("job", -signal.SIGKILL)
    second = watched.started()
    assert second != first
    wait_until(lambda: watched.supervisor.running() == {"job": second})


def test_a_trainer_that_keeps_failing_is_given_up(watch: Callable[..., Watched]) -> None:
    watched = watch("raise SystemExit(70)")

    watched.supervisor.want({"job"})

    assert [watched.ended() for _ in range(4)] == [("job", 70)] * 4
    wait_until(lambda: watched.supervisor.state() == "failed")
    assert watched.exits.empty()


def test_a_job_given_up_is_tried_again_when_it_comes_back(watch: Callable[..., Watched]) -> None:
    watched = watch("raise SystemExit(13)")
    watched.supervisor.want({"job"})
    assert watched.ended() == ("job", 13)
    wait_until(lambda: watched.supervisor.state() == "failed")

    watched.supervisor.want({"job"})
    watched.supervisor.want(set())
    wait_until(lambda: watched.supervisor.state() == "idle")
    watched.supervisor.want({"job"})

    assert watched.ended() == ("job", 13)


def test_a_job_that_is_done_is_not_started_again(watch: Callable[..., Watched]) -> None:
    watched = watch("raise SystemExit(0)")

    watched.supervisor.want({"job"})

    assert watched.ended() == ("job", 0)
    wait_until(lambda: watched.supervisor.state() == "idle")


def test_several_jobs_are_independent(watch: Callable[..., Watched]) -> None:
    watched = watch("import sys\nif sys.argv[1] == 'bad': raise SystemExit(12)\nsys.stdin.read()")
    watched.supervisor.want({"bad", "good"})
    pids = {watched.started(), watched.started()}

    assert watched.ended() == ("bad", 12)
    wait_until(lambda: list(watched.supervisor.running()) == ["good"])
    assert set(watched.supervisor.running().values()) < pids


def test_stopping_kills_a_trainer_that_does_not_listen(watch: Callable[..., Watched]) -> None:
    watched = watch(STUBBORN)
    watched.supervisor.want({"job"})
    pid = watched.started()
    wait_until(lambda: bool(watched.supervisor.running()))

    watched.supervisor.stop(0.2)

    assert not is_alive(pid)


def test_stopping_without_starting_is_harmless(tmp_path: Path) -> None:
    TrainerSupervisor(tmp_path, lambda *_: None).stop()


def test_a_command_that_does_not_exist_is_a_failed_trainer(tmp_path: Path) -> None:
    exits: queue.Queue[tuple[str, int]] = queue.Queue()
    supervisor = TrainerSupervisor(
        tmp_path,
        lambda job, code: exits.put((job, code)),
        command=lambda _: ["/nowhere/python"],
        policy=QUICK,
    )
    supervisor.start()
    supervisor.want({"job"})

    assert exits.get(timeout=WAIT_S) == ("job", 127)
    supervisor.stop()


def test_a_callback_that_fails_does_not_end_supervision(tmp_path: Path) -> None:
    calls: queue.Queue[int] = queue.Queue()

    def fail(_: str, code: int) -> None:
        calls.put(code)
        raise RuntimeError("the report failed")

    supervisor = TrainerSupervisor(
        tmp_path, fail, command=lambda _: [sys.executable, "-c", "raise SystemExit(70)"], policy=QUICK
    )
    supervisor.start()
    supervisor.want({"job"})

    assert [calls.get(timeout=WAIT_S) for _ in range(4)] == [70] * 4
    supervisor.stop()


def test_a_trainer_ends_when_the_agent_is_killed() -> None:
    agent = f"""
import sys, threading
from pathlib import Path
from hedgerow.edge_agent.trainer.supervisor import TrainerSupervisor
child = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read(); print('gone', flush=True)"
supervisor = TrainerSupervisor(Path("/"), print, command=lambda _: [{sys.executable!r}, "-c", child])
supervisor.start(); supervisor.want({{"job"}}); threading.Event().wait()
"""
    process = subprocess.Popen([sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    int(process.stdout.readline())

    process.kill()

    assert process.stdout.readline().strip() == "gone"
    process.wait()
    process.stdout.close()


def test_supervising_loads_no_heavy_library() -> None:
    code = (
        "import sys, hedgerow.edge_agent.trainer.supervisor\n"
        "heavy = {'torch', 'flwr', 'opacus', 'dp_accounting', 'onnx', 'fastapi', 'numpy', 'scipy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr


def test_the_command_names_home_and_job_and_the_environment_keeps_to_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    assert trainer_command(tmp_path, "j-1")[-4:] == ["--home", str(tmp_path), "--job", "j-1"]
    assert trainer_environment()["OMP_NUM_THREADS"] == "1"
