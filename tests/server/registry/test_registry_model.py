"""Any order of registering, promoting, going back and yanking, against a model in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.delivery import manifest_of, write_bundle

from hedgerow.server.bus import Bus
from hedgerow.server.registry import Registry, RegistryConflictError
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Base, Database


class RegistryMachine(RuleBasedStateMachine):
    """One model name, whose history is kept beside the registry."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.database = Database(f"sqlite:///{self.root}/h.db")
        Base.metadata.create_all(self.database.engine)
        self.registry = Registry(self.database, Blobs(self.root / "blobs"), Bus())
        self.contents: dict[int, bytes] = {}
        self.aliases: dict[str, int] = {}
        self.yanked: set[int] = set()
        self.reserved = 0
        self.folders = 0

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.root)

    def _register(self, version: int, data: bytes) -> bool:
        self.folders += 1
        folder = write_bundle(
            self.root / f"w{self.folders}", manifest_of("pump", version, {"m": data}), {"m": data}
        )
        try:
            self.registry.register(folder)
        except RegistryConflictError:
            return False
        return True

    @rule()
    def reserve(self) -> None:
        version = self.registry.next_version("pump")
        assert version == self.reserved + 1
        self.reserved = version

    @rule(version=st.integers(1, 12), data=st.sampled_from([b"x", b"y"]))
    def register(self, version: int, data: bytes) -> None:
        fresh = version > max(self.contents, default=0)
        same = self.contents.get(version) == data
        assert self._register(version, data) == (fresh or same)
        if fresh:
            self.contents[version] = data
            self.reserved = max(self.reserved, version)

    @precondition(lambda self: self.contents)
    @rule(choice=st.randoms(use_true_random=False))
    def promote(self, choice: object) -> None:
        version = choice.choice(sorted(self.contents))  # type: ignore[attr-defined]
        try:
            with self.database.transaction() as session:
                self.registry.promote(session, "pump", version)
        except RegistryConflictError:
            assert version in self.yanked
            return
        assert version not in self.yanked
        champion = self.aliases.get("champion")
        if champion is not None and champion != version:
            self.aliases["previous"] = champion
        self.aliases["champion"] = version

    @rule()
    def go_back(self) -> None:
        aliases = self.registry.aliases("pump")
        possible = "previous" in self.aliases and self.aliases["previous"] not in self.yanked
        try:
            self.registry.rollback_target("pump", aliases)
        except RegistryConflictError:
            assert not possible
            return
        assert possible
        with self.database.transaction() as session:
            self.registry.swap_back(session, "pump", aliases)
        self.aliases["champion"], self.aliases["previous"] = (
            self.aliases["previous"],
            self.aliases["champion"],
        )

    @precondition(lambda self: self.contents)
    @rule(choice=st.randoms(use_true_random=False))
    def yank(self, choice: object) -> None:
        version = choice.choice(sorted(self.contents))  # type: ignore[attr-defined]
        try:
            self.registry.mark_yanked("pump", version, "bad")
        except RegistryConflictError:
            assert version == self.aliases["champion"]
            return
        self.yanked.add(version)

    @invariant()
    def aliases_are_what_was_asked_for_last(self) -> None:
        assert self.registry.aliases("pump") == self.aliases

    @invariant()
    def every_version_is_there_with_its_first_content(self) -> None:
        if not self.reserved:
            return
        versions = self.registry.list_versions("pump")
        assert [version.version for version in versions] == sorted(self.contents, reverse=True)
        assert {version.version for version in versions if version.yanked} == self.yanked
        for number, data in self.contents.items():
            assert self.registry.open("pump", number).artefacts["m"].read_bytes() == data


RegistryMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestRegistryModel = RegistryMachine.TestCase
