"""The trainer process: reads the device's home, joins the job, answers rounds, ends with its parent or its job."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow.edge_agent.config import AgentConfig, read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.trainer.exits import Exit
from hedgerow.edge_agent.trainer.fleet_node import FleetNode
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.loop import serve
from hedgerow.shared.errors import (
    AuthError,
    ConfigError,
    IntegrityError,
    StorageError,
    TransportError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from hedgerow.edge_agent.trainer.session import FetchModel, Session
    from hedgerow.shared.profile import DeviceProfile

log = logging.getLogger(__name__)
Connect = Callable[[AgentHome, AgentConfig, str], FleetNode]
_OOM_SCORE = 800
"""Of 1000: among all processes the kernel takes the trainer first, so that inference goes on."""
_LEAVE_S = 4.0
_MEANING: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Exit], ...] = (
    (ConfigError, Exit.CONFIG),
    ((ModuleNotFoundError, UnsupportedError), Exit.MISSING_EXTRA),
    (IntegrityError, Exit.LEDGER),
    (StorageError, Exit.STORAGE),
    (AuthError, Exit.REFUSED),
    (MemoryError, Exit.OUT_OF_MEMORY),
)


class StopRequest(BaseException):
    """A signal asked the process to end. Unwinding is safe anywhere: the ledger is written before and after."""


def main(arguments: Sequence[str] | None = None, connect: Connect | None = None) -> int:
    """Run the trainer of one job; returns an ``Exit`` code. ``connect`` joins the job (Flower's protocol if None)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_parent, name="hedgerow-trainer-parent", daemon=True).start()
    try:
        _run(AgentHome(options.home), options.job, connect or connect_flower)
    except StopRequest:
        return Exit.STOPPED
    except Exception as error:  # noqa: BLE001 - the process's own boundary: the code tells the supervisor, the log people
        return _exit_of(error)
    return Exit.DONE


def _exit_of(error: Exception) -> Exit:
    if type(error).__name__ == "ReplacedError":  # its module loads Flower, which may be what is missing
        return Exit.REPLACED
    for kind, code in _MEANING:
        if isinstance(error, kind):
            log.error("%s: %s", code.name.lower().replace("_", "-"), error)
            return code
    log.error("the trainer crashed", exc_info=error)
    return Exit.CRASHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hedgerow.edge_agent.trainer",
        description="Train one job on this device. Started by the agent; ends when its standard input closes.",
    )
    parser.add_argument("--home", type=Path, required=True, help="the agent's home")
    parser.add_argument("--job", required=True, help="the job's id")
    return parser


def _run(home: AgentHome, job_id: str, connect: Connect) -> None:
    config = read_config(home.config)
    _be_modest(config)
    ledger = DeviceLedger(home.ledger)
    node = connect(home, config, job_id)
    try:
        session = open_session(home, config, job_id, ledger, node.fetch_model)
        serve(node, session.answer)
    finally:
        node.close()


def _be_modest(config: AgentConfig) -> None:
    """Yield to inference: nice, first in line for the out-of-memory killer, few threads, a memory limit if asked."""
    import resource

    import torch

    trainer = config.trainer
    if trainer.device != "cpu":
        raise ConfigError(f"[trainer] device = {trainer.device!r}: only 'cpu' is built")
    os.nice(trainer.nice)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    except OSError:
        log.debug("no out-of-memory score on this system")
    if trainer.memory_limit_mib:
        limit = trainer.memory_limit_mib * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(trainer.threads)


def open_session(
    home: AgentHome, config: AgentConfig, job_id: str, ledger: DeviceLedger, fetch_model: FetchModel
) -> Session:
    """Return the session of a job over the device's own samples. Raises ConfigError for a profile that is wrong."""
    from hedgerow.edge_agent.samples.store import SampleStore
    from hedgerow.edge_agent.trainer.session import Session
    from hedgerow.models.recipe import find_recipe

    return Session(
        job_id,
        open_samples=lambda: SampleStore(home.samples, max_bytes=0, max_age_s=None, read_only=True),
        ledger=ledger,
        find_recipe=find_recipe,
        profile=_profile(home, config),
        fetch_model=fetch_model,
    )


def _profile(home: AgentHome, config: AgentConfig) -> DeviceProfile | None:
    from hedgerow.shared.profile import read_profile

    path = home.path / config.profile
    return read_profile(path) if path.exists() else None


def connect_flower(home: AgentHome, config: AgentConfig, job_id: str) -> FleetNode:
    """Join the job as the device's Flower node, however long the server takes. Raises AuthError, ConfigError."""
    from hedgerow.edge_agent.trainer.fleet import FleetNode as FlowerNode

    node = FlowerNode(config.server_url, home.identity_files(), job_id)
    try:
        while True:
            try:
                node.activate()
            except TransportError as error:
                log.warning("the job cannot be joined yet: %s", error)
            else:
                return node
    except BaseException:
        node.close()
        raise


def _end_with_parent() -> None:
    """End when standard input closes: the agent holds its other end and never writes."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LEAVE_S)  # the main thread may be deep in a matrix product, where no signal reaches it
    os._exit(Exit.STOPPED)


def _stop(_number: int, _frame: object) -> None:
    """Unwind the main thread; if that takes too long (a large matrix product, a server that hangs), just end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    timer = threading.Timer(_LEAVE_S, os._exit, (Exit.STOPPED,))
    timer.daemon = True
    timer.start()
    raise StopRequest
