"""A stock flower-supernode with a stock ClientApp joins through the flower proxy and answers a round."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.cli.build import build_fab_from_disk
from tests.support.round_parts import in_thread, instruction

from hedgerow.edge_agent.flower_proxy import FlowerProxy
from hedgerow.server.flower import read_fab
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.bench.bed import Bed

APP = Path(__file__).parents[1] / "support" / "stock_app"
JOB = "stock-job"


def start_supernode(proxy: FlowerProxy, folder: Path) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "supernode.log").open("wb") as log:
        return subprocess.Popen(
            [str(tools / "flower-supernode"), *proxy.arguments, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.system
@pytest.mark.slow
def test_a_stock_supernode_answers_a_round_through_the_proxy(tmp_path: Path) -> None:
    async def scenario() -> None:
        fab = tmp_path / "app.fab"
        fab.write_bytes(build_fab_from_disk(APP))
        bed = Bed(tmp_path)
        async with bed.serve(fab=read_fab(fab)) as (link, url):
            await link.open_job(JOB, "flower")
            proxy = FlowerProxy(url, bed.identity("stock"), tmp_path / "proxy")
            proxy.start()
            process = start_supernode(proxy, tmp_path)
            try:
                assert await link.wait_online(JOB, 1, 60.0), (tmp_path / "supernode.log").read_text()
                assert link.online(JOB) == {"stock"}
                model = np.arange(12, dtype="<f4")
                sha256 = link.publish_model(JOB, model.view(np.uint8).data)
                await link.send(JOB, "stock", instruction(12, sha256=sha256, job=JOB))

                reply = await link.next_reply(JOB, 60.0)

                assert reply is not None, (tmp_path / "supernode.log").read_text()
                assert reply.error is None
                assert reply.header is not None
                assert (reply.header.n_samples, reply.header.metrics) == (7, {"loss": 0.5})
                delta = np.frombuffer(b"".join(reply.payload), "<f4")
                np.testing.assert_array_equal(delta, np.full(12, 0.5, np.float32))
                await link.release(reply)
                assert len(link.state.object_store) == 0
            finally:
                await in_thread(end, process)
                await in_thread(proxy.stop)

    asyncio.run(scenario())


def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.fab").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ConfigError, match="not a Flower app bundle"):
        read_fab(tmp_path / "x.fab")
