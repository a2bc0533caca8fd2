from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fleet import client_of, running_fleet, running_server

from hedgerow.edge_agent.config import read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.renew import main, renew
from hedgerow.edge_agent.link.renewal import Renewal, due_in_s, read_facts, run_renewal
from hedgerow.shared.errors import AuthError, StorageError, TransportError


def test_renewed_identity_has_a_new_key_and_works_beside_the_old(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)):
        old = home.identity_files()
        before = (home.key.read_bytes(), client_of(home, server.url))
        keys: list[str] = []
        server.fleet.enrolment.on_key.append(lambda device, _: keys.append(device))
        run_renewal(home)

        assert home.key.read_bytes() != before[0]
        assert keys == ["device-0"]
        assert client_of(home, server.url).get("/v1/device/desired").status == 200
        assert before[1].get("/v1/device/desired").status == 200
        assert old.key.exists() and old.key != home.identity_files().key


def test_old_generations_are_removed(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (_, (home,)):
        for _ in range(3):
            renew(home)

    assert len(list(home.identities.iterdir())) == 2


def test_revoked_device_keeps_its_identity_and_gets_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)):
        before = home.certificate.read_bytes()
        server.fleet.devices.revoke("device-0", "stolen")
        with pytest.raises(AuthError, match="revoked"):
            renew(home)
        assert main(["--home", str(home.path)]) == 1
        with pytest.raises(TransportError, match="revoked"):
            run_renewal(home)

    assert "revoked" in capsys.readouterr().err
    assert home.certificate.read_bytes() == before


def test_lost_renewal_is_asked_for_again_with_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hedgerow.edge_agent.join.renew as module

    def power_cut(*_: object) -> None:
        raise StorageError("the power fails here")

    with running_fleet(tmp_path, 1) as (server, (home,)):
        before = home.identity_files()
        with monkeypatch.context() as patch:
            patch.setattr(module, "install_identity", power_cut)
            with pytest.raises(StorageError):
                renew(home)
        assert home.identity_files() == before
        renew(home)

        assert home.identity_files() != before
        assert len(server.fleet.devices.public_keys("device-0")) == 2


def test_renewal_is_due_at_two_thirds_of_the_life(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        home = server.join_device(tmp_path / "home", "pump-1")
    facts = read_facts(home.identity_files().facts)

    assert facts.device == "pump-1"
    days = due_in_s(facts, facts.not_before_s) / 86_400
    assert 19.9 < days < 20.1
    assert due_in_s(facts, facts.not_after_s) < 0


class Step:
    """A renewal without its thread, over a clock that tests set."""

    def __init__(self, home: AgentHome, error: Exception | None = None) -> None:
        self.now_s = 0.0
        self.done: list[str] = []
        self.error = error

        def work(_: AgentHome) -> None:
            if self.error is not None:
                raise self.error
            self.done.append("renewed")

        self.renewal = Renewal(home, lambda: self.done.append("told"), renew=work, now_s=lambda: self.now_s)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> AgentHome:
    folder = tmp_path_factory.mktemp("joined")
    with running_server(folder / "server") as server:
        return server.join_device(folder / "home", "pump-1")


def test_nothing_is_renewed_before_it_is_due(joined: AgentHome) -> None:
    step = Step(joined)
    step.now_s = read_facts(joined.identity_files().facts).not_before_s

    assert step.renewal.step() == 3600
    assert step.done == []


def test_renewal_is_told_of_so_that_the_link_goes_on_with_it(joined: AgentHome) -> None:
    step = Step(joined)
    step.now_s = read_facts(joined.identity_files().facts).not_after_s - 86_400
    step.renewal.step()

    assert step.done == ["renewed", "told"]


def test_failed_renewal_is_tried_again_later_and_later(joined: AgentHome) -> None:
    step = Step(joined, TransportError("server gone"))
    step.now_s = read_facts(joined.identity_files().facts).not_after_s
    waits = [step.renewal.step() for _ in range(10)]

    assert step.done == []
    assert 15 <= waits[0] <= 30
    assert 1800 <= waits[-1] <= 3600
    step.error = None
    step.renewal.step()
    assert step.done == ["renewed", "told"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"garbage"])
def test_damaged_facts_are_an_error_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "facts.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"facts\.json"):
        read_facts(tmp_path / "facts.json")


def test_thread_stops_at_once(joined: AgentHome) -> None:
    renewal = Renewal(joined, lambda: None)
    renewal.start()
    renewal.stop(5)

    assert not renewal._thread.is_alive()
    assert read_config(joined.config).device == "pump-1"
