"""The bench of many devices: what it lets in can be used, what it counts adds up."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hedgerow.edge_agent.link.tls import device_context
from hedgerow.server.app.home import ServerHome
from hedgerow.server.app.setup import set_up
from hedgerow.server.bus import Bus
from hedgerow.server.fleet import Fleet
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction
from hedgerow.simulations.bench import fleet
from hedgerow.simulations.bench.echo_device import identity_in
from hedgerow.simulations.bench.thin_devices import Tally, answer_to


def test_percentiles_are_of_the_ordered_times() -> None:
    times = np.random.default_rng(1).permutation(np.arange(1, 201)) / 1000

    assert fleet.percentiles(times.tolist()) == {
        "n": 200, "p50_ms": 101.0, "p95_ms": 191.0, "p99_ms": 199.0, "max_ms": 200.0,
    }  # fmt: skip
    assert fleet.percentiles([0.5]) == {
        "n": 1,
        "p50_ms": 500.0,
        "p95_ms": 500.0,
        "p99_ms": 500.0,
        "max_ms": 500.0,
    }
    assert fleet.percentiles([]) == {"n": 0}


def test_devices_let_in_beforehand_are_known_to_the_server_by_their_certificates(tmp_path: Path) -> None:
    home: ServerHome = set_up(
        tmp_path / "server", ("127.0.0.1",), gateway_port=0, operator_port=0, advertise=False
    )
    folders = fleet.enrol(home.root, tmp_path / "devices", 3)

    database = Database(home.database_url(home.read_config()))
    try:
        made = Fleet(database, Bus(), CertificateAuthority.load(home.pki), tuf_root=lambda: "{}")
        made.devices.load()
        for number, folder in enumerate(folders):
            device_context(identity_in(folder))
            der = ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())
            assert made.devices.device_of(der) == folder.name == f"thin-{number}"
        assert [one.status for one in made.devices.all()] == ["active"] * 3
    finally:
        database.close()


def test_a_thin_device_answers_with_an_update_of_its_own_for_each_round() -> None:
    def asked(round: int) -> TrainInstruction:
        return TrainInstruction(
            "job",
            round,
            0,
            "digits-cnn",
            "",
            {},
            PrivacySpec("none"),
            TrainingSpec(),
            "float32",
            3,
            100,
            "",
            60.0,
        )

    header, update = answer_to(asked(1), "thin-1")
    values = np.frombuffer(update, "<f4")

    assert (header.update_bytes, header.update_sha256) == (400, hashlib.sha256(update).hexdigest())
    assert (header.job_id, header.round, header.n_parameters) == ("job", 1, 100)
    assert np.isfinite(values).all() and 0 < np.abs(values).max() < 0.01
    assert len({answer_to(asked(r), d)[1] for r in (1, 2) for d in ("thin-1", "thin-2")}) == 4


def test_failures_are_counted_by_kind() -> None:
    from hedgerow.shared.errors import TransportError

    seen = Tally()
    for _ in range(3):
        seen.failed("heartbeat", TransportError("cut off"))
    seen.failed("round", TransportError("cut off"))

    assert seen.measured.failures == {
        "heartbeat: TransportError: cut off": 3,
        "round: TransportError: cut off": 1,
    }


@pytest.mark.parametrize(
    "given", [["--devices", "1"], ["--devices", "2000"], ["--rounds", "0"], ["--interval", "0"]]
)
def test_wrong_options_are_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fleet.main(given)
    assert ended.value.code == 2


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_dozen_devices_play_their_rounds_and_are_measured() -> None:
    command = [sys.executable, "-m", "hedgerow.simulations.bench.fleet", "--devices", "12", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--interval", "1", "--rest", "2", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])

    assert [(one["drawn"], one["replied"]) for one in result["rounds"]] == [(12, 12), (12, 12)]
    assert result["answered"] == 24
    assert result["failures"] == {}
    assert result["heartbeats"]["rest"]["n"] >= 12
    assert 0 < result["rest_memory"]["pss_mb"] <= result["in_rounds_memory"]["peak_pss_mb"]
    assert result["in_rounds"]["failures"] == 0
    assert result["server_cpu_s"] > 0 and result["devices_cpu_s"] > 0
