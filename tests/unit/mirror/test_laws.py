"""Any life of a repository, with lies and kills in between, seen through a mirror.

Always: Triton could load what is local; every local config was committed; it is never one that was
committed before the one that was local already. In the end, with an honest store: local is remote.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.mirror.advance import Rules
from pipeline.testing.lying_store import LIES, LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import InlineMirror, file_steps, unloadable
from pipeline.testing.simulated import Killed

MODELS = st.sampled_from(["a", "b"])
VERSIONS = st.integers(1, 3)
RULES = Rules(grace_seconds=0, reserve_bytes=0, retry_seconds=0, removal_listings=2)
STEPS = file_steps()


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mirror-law-"))
        self.store = LyingStore()
        self.publisher = SimulatedPublisher(self.store)
        self.mirror: InlineMirror | None = None
        self.reached: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.publisher.publish("always", 1)
        self._live()
        assert self.mirror is not None
        self.mirror.look()

    @rule(model=MODELS, version=VERSIONS)
    def publish(self, model: str, version: int) -> None:
        """Made anew if nobody may have it; what is committed never changes its bytes."""
        if f"versions: {version}\n" not in self._remote_config(model):
            self.publisher.upload(model, version, b"made anew %d" % self.store.world.now)
        self.publisher.commit(model, version)

    @rule(model=MODELS, versions=st.lists(VERSIONS, min_size=1, max_size=2, unique=True))
    def commit(self, model: str, versions: list[int]) -> None:
        keys = self.store.snapshot().keys()
        if all(f"{model}/{version}/manifest.json" in keys for version in versions):
            self.publisher.commit(model, *versions)

    @rule(model=MODELS, version=VERSIONS)
    def lose_a_file(self, model: str, version: int) -> None:
        self.store.delete([f"{model}/{version}/model.onnx"])

    @rule(model=MODELS)
    def withdraw(self, model: str) -> None:
        self.publisher.withdraw(model)

    @rule(lie=st.sampled_from(LIES), at=st.integers(0, 6), goes_on=st.booleans())
    def look_at_a_liar(self, lie: str, at: int, goes_on: bool) -> None:
        self.store.tell_lie(lie, at, goes_on=goes_on)
        self._live()
        assert self.mirror is not None
        self.mirror.look()
        self.store.be_honest()

    @rule(fatal=st.integers(0, 40))
    def die(self, fatal: int) -> None:
        try:
            with STEPS.counted(fatal=fatal):
                self._live()
                assert self.mirror is not None
                self.mirror.look()
        except Killed:
            if self.mirror is not None:
                self.mirror.close()
            self.mirror = None

    @precondition(lambda self: self.mirror is not None)
    @rule(read_digests=st.booleans())
    def restart(self, read_digests: bool) -> None:
        assert self.mirror is not None
        self.mirror.close()
        self.mirror = None
        self._live(read_digests=read_digests)

    @rule()
    def agree(self) -> None:
        self._live()
        assert self.mirror is not None
        for _ in range(3):
            self.mirror.look()
        refused = self.mirror.reasons()
        for model in ("a", "b", "always"):
            if model not in refused:
                assert (self.mirror.local.config(model) or "") == self._remote_config(model)

    @invariant()
    def triton_could_load_it(self) -> None:
        assert unloadable(self.folder / "mirror") == []

    @invariant()
    def it_only_moves_forward(self) -> None:
        for model, committed in self.publisher.committed.items():
            path = self.folder / "mirror" / "repository" / model / "config.pbtxt"
            if path.is_file():
                local = path.read_text()
                newest = len(committed) - 1 - committed[::-1].index(local)
                assert newest >= self.reached.get(model, 0)
                # The same text may have been committed again: this is the oldest that it can be.
                reached = self.reached.get(model, 0)
                self.reached[model] = committed.index(local, reached)

    def teardown(self) -> None:
        self.agree()
        if self.mirror is not None:
            self.mirror.close()
        shutil.rmtree(self.folder)

    def _live(self, *, read_digests: bool = False) -> None:
        if self.mirror is None:
            self.mirror = InlineMirror(
                self.store, self.folder / "mirror", rules=RULES, read_digests=read_digests
            )

    def _remote_config(self, model: str) -> str:
        return (self.store.snapshot().get(f"{model}/config.pbtxt") or b"").decode()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
