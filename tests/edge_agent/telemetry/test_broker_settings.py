"""The broker's address and certificates, as a person sets them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.broker import TlsFiles

from hedgerow.edge_agent.config import AgentConfig, MqttConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.telemetry.broker import BrokerSettings, broker_settings
from hedgerow.shared.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://gateway", ("gateway", 1883, False)),
        ("mqtt://127.0.0.1:2000", ("127.0.0.1", 2000, False)),
        ("mqtts://broker.example", ("broker.example", 8883, True)),
        ("mqtts://[::1]:9", ("::1", 9, True)),
    ],
)
def test_addresses_are_read(url: str, address: tuple[str, int, bool]) -> None:
    assert BrokerSettings(url, "d").address() == address


@pytest.mark.parametrize(
    "url", ["http://x", "gateway", "mqtt://", "mqtt://x:99999", "mqtt://u:p@x", "mqtt://x/path"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="broker url"):
        BrokerSettings(url, "d").address()


def test_the_context_verifies_the_broker_and_presents_the_device(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path)
    certificate, key = files.client("dev-a")
    settings = BrokerSettings(
        "mqtts://x", "d", ca_file=str(files.ca), certificate_file=str(certificate), key_file=str(key)
    )

    context = settings.tls_context()

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] == 1


CONFIG = AgentConfig(server_url="https://hub", device="dev-a")


def configured(**mqtt: Any) -> AgentConfig:
    return msgspec.structs.replace(CONFIG, mqtt=MqttConfig(**mqtt))


def test_an_agents_configuration_becomes_settings(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    (tmp_path / "mqtt-password").write_text("warm\n")

    plain = broker_settings(configured(username="u", password_file="mqtt-password"), home)
    fleet = broker_settings(configured(url="mqtts://gw", tls="fleet"), home)

    assert (plain.client_id, plain.topic_prefix) == ("dev-a", "hedgerow/v1/dev-a")
    assert (plain.username, plain.password, plain.ca_file) == ("u", "warm", None)
    assert (fleet.ca_file, fleet.key_file) == (str(home.ca), str(home.key))


def test_a_configuration_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    for mqtt in ({"url": "mqtts://gw"}, {"url": "mqtt://gw", "tls": "fleet"}):
        with pytest.raises(ConfigError, match=r"mqtt\.tls"):
            broker_settings(configured(**mqtt), home)
    with pytest.raises(ConfigError, match="password_file"):
        broker_settings(configured(password_file="nowhere"), home)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca_file.*nowhere"):
        BrokerSettings("mqtts://x", "d", ca_file=str(tmp_path / "nowhere")).tls_context()
    broken = tmp_path / "broken.pem"
    broken.write_text("rubbish")
    with pytest.raises(ConfigError, match="cannot be used"):
        BrokerSettings("mqtts://x", "d", ca_file=str(broken)).tls_context()
