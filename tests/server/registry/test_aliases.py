"""Aliases move by compare-and-swap: all of a move or none of it, and never on stale knowledge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session
from tests.support.delivery import manifest_of

from hedgerow.server.registry.aliases import after_promotion, after_rollback, read_aliases, swap_aliases
from hedgerow.server.registry.errors import RegistryConflictError
from hedgerow.server.registry.rows import add_version
from hedgerow.server.store.database import Base, Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/h.db")
    Base.metadata.create_all(made.engine)
    with made.transaction() as session:
        for version in (1, 2, 3):
            add_version(session, manifest_of("pump", version, {"m.onnx": b"x"}), f"{version:064d}", 10)
    yield made
    made.close()


def aliases(database: Database) -> dict[str, int]:
    with database.transaction() as session:
        return read_aliases(session, "pump")


def move(database: Database, expected: dict[str, int], wanted: dict[str, int]) -> None:
    with database.transaction() as session:
        swap_aliases(session, "pump", expected, wanted)


def test_the_first_promotion_has_no_previous() -> None:
    assert after_promotion({}, 1) == {"champion": 1}


def test_a_promotion_keeps_the_old_champion_as_previous() -> None:
    assert after_promotion({"champion": 1, "previous": 7}, 2) == {"champion": 2, "previous": 1}


def test_promoting_the_champion_again_changes_nothing() -> None:
    assert after_promotion({"champion": 2, "previous": 1}, 2) == {"champion": 2, "previous": 1}


@settings(deadline=None)
@given(st.integers(1, 99), st.integers(1, 99))
def test_two_rollbacks_are_none(champion: int, previous: int) -> None:
    current = {"champion": champion, "previous": previous}

    assert after_rollback(after_rollback(current, "m"), "m") == current


@pytest.mark.parametrize("current", [{}, {"champion": 1}])
def test_without_a_previous_version_there_is_no_way_back(current: dict[str, int]) -> None:
    with pytest.raises(RegistryConflictError, match="no previous version"):
        after_rollback(current, "pump")


def test_a_move_on_fresh_knowledge_happens(database: Database) -> None:
    move(database, {}, {"champion": 1})
    move(database, {"champion": 1}, {"champion": 2, "previous": 1})

    assert aliases(database) == {"champion": 2, "previous": 1}


def test_a_move_on_stale_knowledge_is_refused_whole(database: Database) -> None:
    move(database, {}, {"champion": 2, "previous": 1})

    with pytest.raises(RegistryConflictError, match="no longer version 1"):
        move(database, {"champion": 1, "previous": 1}, {"champion": 3, "previous": 3})
    assert aliases(database) == {"champion": 2, "previous": 1}


def test_a_move_that_fails_at_its_second_alias_undoes_the_first(database: Database) -> None:
    move(database, {}, {"champion": 2, "previous": 1})

    with pytest.raises(RegistryConflictError, match="previous is no longer version 3"):
        move(database, {"champion": 2, "previous": 3}, {"champion": 3, "previous": 2})
    assert aliases(database) == {"champion": 2, "previous": 1}


def test_two_first_promotions_let_one_through(database: Database) -> None:
    move(database, {}, {"champion": 1})

    with pytest.raises(RegistryConflictError):
        move(database, {}, {"champion": 2})
    assert aliases(database) == {"champion": 1}


def test_an_alias_can_be_taken_away(database: Database) -> None:
    move(database, {}, {"champion": 2, "previous": 1})
    move(database, {"champion": 2, "previous": 1}, {"champion": 2})

    assert aliases(database) == {"champion": 2}


def test_an_exception_in_the_callers_transaction_undoes_the_move(database: Database) -> None:
    def begin(session: Session) -> None:
        swap_aliases(session, "pump", {}, {"champion": 1})
        raise KeyError("the caller failed")

    with pytest.raises(KeyError), database.transaction() as session:
        begin(session)
    assert aliases(database) == {}
