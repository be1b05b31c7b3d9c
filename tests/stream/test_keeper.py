"""The keeper's steps, with a cluster, a store and a log by hand."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stream.keeper import Keeper, NotAccepted, newest_checkpoint
from stream.life import Positions
from stream.rest import Job

WHERE = {("decisions", 0): 100}


@dataclass
class HandProgram:
    name: str
    fingerprint: str
    directory: Path

    def checkpoints(self, generation: str) -> str:
        return (self.directory / self.name / generation).as_uri()


@dataclass
class HandCluster:
    """Jobs by id: name, state, parameters."""

    held: dict[str, list] = field(default_factory=dict)
    size: int = 4
    asked: list[str] = field(default_factory=list)

    def jobs(self) -> list[Job]:
        return [
            Job(at, name, state, state == "RUNNING", n)
            for n, (at, (name, state, _)) in enumerate(self.held.items())
        ]

    def parameters(self, job_id: str) -> dict[str, str]:
        self.asked.append(job_id)
        told: dict[str, str] = self.held[job_id][2]
        return told

    def cancel(self, job_id: str) -> None:
        self.held[job_id][1] = "CANCELED"

    def slots(self) -> int:
        return self.size


@dataclass
class HandStore:
    life: str = "g1"
    marked: str | None = None
    reached: dict[str, Positions] = field(default_factory=dict)

    def generation(self) -> str:
        return self.life

    def positions(self, life: str) -> Positions:
        return self.reached.get(life, {})

    def rebuilding(self) -> str | None:
        return self.marked

    def begin_rebuilding(self, life: str, now_ms: int) -> None:
        self.marked = f"{life} {now_ms}"

    def end_rebuilding(self) -> None:
        self.marked = None


@dataclass
class HandLog:
    at: Positions = field(default_factory=lambda: dict(WHERE))

    def ends(self, topics: Sequence[str]) -> Positions:
        return dict(self.at)

    def is_reached(self, ends: Positions, reached: Positions) -> bool:
        return all(reached.get(at, 0) >= end - 1 for at, end in ends.items())


class World:
    """A keeper of one program, its parts in hand."""

    def __init__(self, directory: Path) -> None:
        self.program = HandProgram("job", "p1", directory)
        self.cluster, self.store, self.log = HandCluster(), HandStore(), HandLog()
        self.starts: list[tuple[str, str | None]] = []
        self.refuses = False
        self.now_s = 0.0
        self.keeper = self.make()

    def make(self) -> Keeper[HandProgram]:
        return Keeper(
            programs=[self.program],
            topics=["decisions"],
            cluster=self.cluster,
            store=self.store,
            log=self.log,
            start=self.start,
            say=lambda text: None,
            wall_ms=lambda: 77,
            monotonic_s=lambda: self.now_s,
            parameter_names=("generation", "program"),
        )

    def start(self, program: HandProgram, generation: str, restore: str | None) -> str:
        if self.refuses:
            raise NotAccepted("no")
        self.starts.append((generation, restore))
        at = f"j{len(self.starts)}"
        told = {"generation": generation, "program": program.fingerprint}
        self.cluster.held[at] = [program.name, "RUNNING", told]
        return at

    def checkpoint(self, generation: str, job: str, number: int, age_s: int = 0) -> str:
        """A completed checkpoint on disk."""
        directory = self.program.directory / self.program.name / generation / job / f"chk-{number}"
        directory.mkdir(parents=True)
        metadata = directory / "_metadata"
        metadata.write_bytes(b"x")
        os.utime(metadata, (1_000_000 - age_s, 1_000_000 - age_s))
        return directory.as_uri()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_fresh_installation_starts_and_misses_nothing(world: World) -> None:
    world.log.at = {("decisions", 0): 0}
    assert not world.keeper.step()
    assert world.starts == [("g1", None)]
    assert world.store.marked is None
    assert world.keeper.step()
    assert len(world.starts) == 1


def test_an_empty_store_before_a_full_log_is_rebuilt(world: World) -> None:
    world.keeper.step()
    assert world.store.marked == "g1 77"
    world.log.at = {("decisions", 0): 500}
    world.store.reached["g1"] = {("decisions", 0): 98}
    world.keeper.step()
    assert world.keeper.rebuilding
    world.store.reached["g1"] = {("decisions", 0): 99}
    world.keeper.step()
    assert world.store.rebuilding() is None


def test_a_failed_job_starts_from_its_newest_checkpoint(world: World) -> None:
    world.store.reached["g1"] = {("decisions", 0): 50}
    world.keeper.step()
    world.checkpoint("g1", "j0", 9, age_s=60)
    newest = world.checkpoint("g1", "j1", 2)
    world.checkpoint("g2", "j1", 3)
    (world.program.directory / "job" / "g1" / "j1" / "chk-3").mkdir()
    world.cluster.held["j1"][1] = "FAILED"
    world.now_s = 10
    world.keeper.step()
    assert world.starts == [("g1", None), ("g1", newest)]
    assert world.store.marked is None


def test_a_cluster_that_forgot_its_jobs_gets_them_again(world: World) -> None:
    world.keeper.step()
    newest = world.checkpoint("g1", "j1", 2)
    world.cluster.held.clear()
    world.cluster.size = 0
    world.now_s = 10
    world.keeper.step()
    assert len(world.starts) == 1, "nothing to run on yet"
    world.cluster.size = 4
    world.keeper.step()
    assert world.starts[1:] == [("g1", newest)]


def test_another_generation_starts_everything_from_the_beginning(world: World) -> None:
    world.store.reached["g1"] = {("decisions", 0): 100}
    world.keeper.step()
    world.checkpoint("g1", "j1", 2)
    world.keeper.step()
    world.store.life = "g2"
    world.keeper.step()
    assert world.cluster.held["j1"][1] == "CANCELED"
    assert world.store.marked == "g2 77"
    world.keeper.step()
    assert world.starts == [("g1", None), ("g2", None)]
    world.store.reached["g2"] = {("decisions", 0): 99}
    assert world.keeper.step()
    assert world.store.marked is None


def test_a_keeper_started_anew_adopts_what_fits_and_cancels_the_rest(world: World) -> None:
    world.store.reached["g1"] = {("decisions", 0): 100}
    world.keeper.step()
    again = world.make()
    assert again.step()
    assert len(world.starts) == 1
    world.program.fingerprint = "p2"
    changed = world.make()
    changed.step()
    assert world.cluster.held["j1"][1] == "CANCELED"
    changed.step()
    assert world.cluster.held["j2"][2]["program"] == "p2"


def test_an_interrupted_rebuilding_goes_on(world: World) -> None:
    world.store.reached["g1"] = {("decisions", 0): 10}
    world.store.marked = "g1 5"
    world.keeper.step()
    assert world.keeper.rebuilding
    world.store.reached["g1"] = {("decisions", 0): 99}
    world.keeper.step()
    assert world.store.marked is None


def test_a_checkpoint_that_cannot_be_restored_is_left_behind(world: World) -> None:
    newest = world.checkpoint("g1", "j0", 2)
    for _ in range(5):
        world.keeper.step()
        for job in world.cluster.held.values():
            job[1] = "FAILED"
        world.now_s += 60
    assert [restore for _, restore in world.starts] == [newest, newest, newest, None, None]


def test_a_refused_job_is_tried_again_with_pauses(world: World) -> None:
    world.refuses = True
    for _ in range(3):
        world.keeper.step()
    world.refuses = False
    world.keeper.step()
    assert world.starts == []
    world.now_s = 3
    world.keeper.step()
    assert len(world.starts) == 1


def test_other_file_systems_have_no_listing() -> None:
    assert newest_checkpoint("s3://bucket/checkpoints") is None


def test_a_job_is_asked_once_what_it_was_started_with(world: World) -> None:
    for _ in range(3):
        world.keeper.step()
    assert world.cluster.asked == ["j1"]
    world.store.life = "g2"
    for _ in range(3):
        world.keeper.step()
    assert world.cluster.asked == ["j1", "j2"]
    assert [generation for generation, _ in world.starts] == ["g1", "g2"]
