from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.config import AgentConfig, LinkConfig, MqttConfig, read_config, to_toml, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import parse_toml

PLAIN = AgentConfig("https://hub.example:8443", "pump-1")


def test_what_is_written_is_read_again_and_owner_only(tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        PLAIN, mqtt=MqttConfig("mqtts://broker:8883", 'us"er\\', "secret", "fleet"), api_port=0
    )
    write_config(tmp_path / "agent.toml", config)

    assert read_config(tmp_path / "agent.toml") == config
    assert (tmp_path / "agent.toml").stat().st_mode & 0o777 == 0o600


@given(st.text(max_size=100), st.floats(0.1, 60), st.booleans())
def test_any_value_survives_the_file(text: str, wait_s: float, enabled: bool) -> None:
    clean = text.encode("utf-8", "ignore").decode()
    config = msgspec.structs.replace(
        PLAIN,
        mqtt=MqttConfig(username=clean),
        link=LinkConfig(poll_wait_s=wait_s),
        trainer=msgspec.structs.replace(PLAIN.trainer, enabled=enabled),
    )

    assert parse_toml(to_toml(msgspec.to_builtins(config)).encode(), AgentConfig, "test") == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('device = "a"', "server_url"),
        ('server_url = "http://x"\ndevice = "a"', "server_url"),
        ('server_url = "https://x"\ndevice = "A b"', "device"),
        ('server_url = "https://x"\ndevice = "a"\nunknown = 1\n[mqtt]\nport = 5', "mqtt.port, unknown"),
        ('server_url = "https://x"\ndevice = "a"\napi_port = 99999', "api_port"),
        ('server_url = "https://x"\ndevice = "a"\n[mqtt]\nurl = "amqp://x"', "mqtt.url"),
        ('server_url = "https://x"\ndevice = \napi_port = 1', "line 2"),
    ],
)
def test_wrong_files_are_refused_naming_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path / "agent.toml")

    assert "agent.toml" in str(refused.value) and named in str(refused.value)


def test_home_is_joined_only_with_config_key_and_certificate(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    for path in (home.config, home.key, home.certificate):
        assert not home.joined()
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert home.joined()
