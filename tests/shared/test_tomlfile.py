"""TOML errors name the file, every unknown key with its path, and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.tomlfile import parse_toml, read_toml

GOOD = b'name = "a"\nrecipe = "r"\n[privacy]\nmode = "none"\n'


def test_a_good_job_is_read(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(GOOD)

    job = read_toml(path, Job)

    assert (job.name, job.privacy.mode, job.rounds) == ("a", "none", 10)


def test_every_unknown_key_is_listed_with_its_path() -> None:
    text = GOOD + b"epsilom = 1\n[training]\nepochs = 2\n[cohort]\nmin = 3\n"

    with pytest.raises(ConfigError) as caught:
        parse_toml(text, Job, "job.toml")

    message = str(caught.value)
    assert "job.toml" in message
    assert "privacy.epsilom" in message
    assert "training.epochs" in message
    assert "cohort.min" in message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b'name = "a"\nrecipe = "r"\n', "privacy"),
        (GOOD.replace(b'"none"', b'"nothing"'), "privacy.mode"),
        (GOOD.replace(b'"a"', b'"Not A Name"'), "name"),
        (b"rounds = 0\n" + GOOD, "rounds"),
        (b"rounds = \n" + GOOD, "line 1"),
        (b"\xff" + GOOD, "UTF-8"),
        (b"#" * (limits.MAX_TOML_BYTES + 1), "larger"),
    ],
)
def test_errors_say_where_and_what(text: bytes, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, Job, "job.toml")

    assert hint in str(caught.value)
    assert "job.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml", Job)
