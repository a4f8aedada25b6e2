"""Random faults from a seeded plan, under load: `make faults ARGS="600 7"`, seconds and seed.

At the end every job must have ended once, no undisturbed runs may have overlapped, and nothing may be stuck. What was
done and found is written to docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from engine.app import make  # noqa: E402
from engine.helpers import WorkerProcess, count, query, until  # noqa: E402
from engine.ledger import Ledger  # noqa: E402

from piecework.testing import FaultProxy  # noqa: E402
from support.private_postgres import PrivatePostgres  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: written by tools/random_faults.py -->", "<!-- soak: end -->"
LEASE = 2.0
WORKERS = 4
BATCH = 60
LONGEST = 120.0
"""Seconds in which all has to end when the faults have ended."""
OF_WORKERS = "^LISTEN|claim_|look_|owned_|idle_workers|settle_|sign of life"


@dataclass
class Member:
    """A worker process behind a proxy of its own."""

    process: WorkerProcess
    proxy: FaultProxy


class Fleet:
    """The workers, and what befalls them. What a fault hits is drawn from `chance`, set by each step of the plan."""

    def __init__(self, server: PrivatePostgres, folder: Path, ledger: Ledger, chance: random.Random) -> None:
        self.server = server
        self.members: list[Member] = []
        self.started = 0
        self.exits: Counter[str] = Counter()
        self._folder = folder
        self._ledger = ledger
        self.chance = chance
        self._healing: set[asyncio.Task[None]] = set()
        self.keep_up()

    @property
    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "a worker is killed": self.kill, "a worker stands still (SIGSTOP)": self.stand_still,
            "a worker is replaced (SIGTERM)": self.replace, "sessions are ended": self.end_sessions,
            "the server is restarted": self.restart, "the server crashes": self.crash,
            "a back end stands still (SIGSTOP)": self.freeze_back_end, "connections are cut": self.cut,
            "connections are reset": self.reset, "a black hole": self.black_hole, "a frozen network": self.freeze,
            "a slow network": self.delay, "a half-open LISTEN": self.half_open,
            "answers to claims are lost": self.lose_claims, "answers to settles are lost": self.lose_settles,
        }  # fmt: skip

    def keep_up(self) -> None:
        """Start what is missing."""
        for member in list(self.members):
            if member.process.ended:
                self.exits[str(member.process.wait())] += 1
                self._ledger.note(f"exited {member.process.pid}")
                self._remove(member)
        while len(self.members) < WORKERS:
            proxy = FaultProxy(self.server.dsn)
            proxy.__enter__()
            log = self._folder / f"worker-{self.started}.log"
            self.started += 1
            options = {"lease": LEASE, "concurrency": 30, "threads": 10, "grace": 1.0}
            self.members.append(Member(WorkerProcess(proxy.dsn, self._ledger.path, log, **options), proxy))

    async def end(self) -> None:
        """Wait until everything that was to pass has passed."""
        if self._healing:
            await asyncio.wait(self._healing)

    def close(self) -> None:
        for member in list(self.members):
            member.process.kill()
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self.members.remove(member)
        member.proxy.__exit__()

    def _any(self) -> Member:
        return self.chance.choice(self.members)

    def _a_while(self) -> float:
        return self.chance.choice([0.2, 1.0, LEASE, 2.5 * LEASE])

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            call()

        task = asyncio.create_task(wait())
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    def _heal_later(self, member: Member) -> None:
        def heal() -> None:
            if member in self.members:
                member.proxy.heal()

        self._later(self._a_while(), heal)

    async def kill(self) -> None:
        member = self._any()
        member.process.kill()
        self._ledger.note(f"killed {member.process.pid}")

    async def stand_still(self) -> None:
        process = self._any().process
        process.send(signal.SIGSTOP)
        self._ledger.note(f"stopped {process.pid}")
        self._later(self._a_while(), lambda: process.send(signal.SIGCONT))

    async def replace(self) -> None:
        self._any().process.send(signal.SIGTERM)

    async def end_sessions(self) -> None:
        of_us = "FROM pg_stat_activity WHERE application_name = 'piecework'"
        sessions = [pid for (pid,) in query(self.server.dsn, f"SELECT pid {of_us} ORDER BY pid")]
        for pid in sessions:
            if self.chance.random() < 0.5:
                query(self.server.dsn, "SELECT pg_terminate_backend(%s)", pid)

    async def restart(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def crash(self) -> None:
        await asyncio.to_thread(self.server.stop, signal.SIGQUIT)
        await asyncio.sleep(self._a_while())
        await asyncio.to_thread(self.server.start)

    async def freeze_back_end(self) -> None:
        of_workers = "SELECT pid FROM pg_stat_activity WHERE application_name = 'piecework' AND query ~ %s"
        found = query(self.server.dsn, of_workers, OF_WORKERS)
        if found:
            pid = int(str(self.chance.choice(found)[0]))
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._a_while())
            finally:
                os.kill(pid, signal.SIGCONT)

    async def cut(self) -> None:
        self._any().proxy.cut()

    async def reset(self) -> None:
        self._any().proxy.reset()

    async def black_hole(self) -> None:
        member = self._any()
        member.proxy.black_hole(*self.chance.choice([(), ("to_server",), ("to_client",)]))
        self._heal_later(member)

    async def freeze(self) -> None:
        member = self._any()
        member.proxy.freeze()
        self._heal_later(member)

    async def delay(self) -> None:
        member = self._any()
        member.proxy.delay(self.chance.choice([0.02, 0.2]))
        self._heal_later(member)

    async def half_open(self) -> None:
        for connection in self._any().proxy.connections(b"^LISTEN"):
            connection.half_open(self.chance.choice(["client", "server"]))

    async def lose_claims(self) -> None:
        self._any().proxy.trap("answer", rb"claim_\d", answer=rb'\[\["', times=self.chance.randint(1, 5))

    async def lose_settles(self) -> None:
        self._any().proxy.trap("answer", rb"settle_\d", times=self.chance.randint(1, 5))


async def run(seconds: float, seed: int, folder: Path) -> list[str]:
    """Do it; returns the lines of the summary. What must hold is asserted."""
    ledger = Ledger(folder / "ledger")
    server = PrivatePostgres(None, {})
    app = make(server.dsn, ledger)
    spawned: set[str] = set()
    befell: Counter[str] = Counter()
    try:
        async with app.jobs:
            fleet = Fleet(server, folder, ledger, random.Random(seed))
            faults = fleet.faults
            until_then = time.monotonic() + seconds
            steps = 0
            try:
                while time.monotonic() < until_then:
                    # A step is the same for a seed whatever came before: its load, its pause, its fault, whom it hits.
                    chance = fleet.chance = random.Random(f"{seed} {steps}")
                    steps += 1
                    handles = await app.jobs.spawn_all(
                        [app.erratic.spec(chance.randrange(1000)) for _ in range(BATCH)]
                        + [app.nap.spec(chance.random()) for _ in range(BATCH // 6)]
                        + [app.nap_in_thread.spec(chance.random()) for _ in range(BATCH // 10)]
                    )
                    spawned |= {str(handle.id) for handle in handles}
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
                    fleet.keep_up()
                    name = chance.choice(sorted(faults))
                    befell[name] += 1
                    print(f"{until_then - time.monotonic():6.1f} s left: {name}", flush=True)
                    await faults[name]()
                await fleet.end()
                fleet.keep_up()
                for member in fleet.members:
                    member.proxy.heal()
                took = await until(lambda: count(server.dsn, "jobs") == 0, within=LONGEST)
                fleet.keep_up()
                return [*told(seconds, seed, befell, fleet), *judged(server.dsn, ledger, spawned, took)]
            finally:
                fleet.close()
    finally:
        server.remove()
        ledger.close()


def told(seconds: float, seed: int, befell: Counter[str], fleet: Fleet) -> list[str]:
    exits = ", ".join(f"{number} with {code}" for code, number in sorted(fleet.exits.items()))
    return [
        f"{seconds:.0f} seconds, seed {seed}; {WORKERS} workers at a time, {fleet.started} in all (ended: {exits}); "
        f"lease {LEASE} s.", "", "| Fault | Times |", "|---|---|",
        *[f"| {name} | {times} |" for name, times in sorted(befell.items())], "",
    ]  # fmt: skip


def judged(dsn: str, ledger: Ledger, spawned: set[str], took: float) -> list[str]:
    ends = {str(id): (status, claim_no) for id, status, claim_no in query(
        dsn, "SELECT id, status, claim_no FROM piecework.finished_jobs")}  # fmt: skip
    twice = "(SELECT FROM piecework.attempts GROUP BY job_id, claim_no HAVING count(*) > 1) AS twice"
    runs = ledger.runs_by_job()
    not_run = [job for job, (status, claim_no) in ends.items() if status == "completed" and claim_no not in
               {run.claim_no for run in runs.get(job, []) if run.ended is not None}]  # fmt: skip
    checks = {
        "jobs that did not end, or were not spawned": len(set(ends) ^ spawned),
        "jobs that ended twice": count(dsn, "finished_jobs") - len(ends),
        "claims that were settled twice": int(str(query(dsn, f"SELECT count(*) FROM {twice}")[0][0])),
        "jobs that completed without a run that ended": len(not_run),
        "runs that overlapped, the earlier neither cut by a kill or an exit nor stopped": len(
            ledger.undisturbed_overlaps()),
    }  # fmt: skip
    moves = query(dsn, "SELECT move, count(*) FROM piecework.attempts GROUP BY 1 ORDER BY 1")
    statuses = Counter(str(status) for status, _ in ends.values())
    lines = [
        f"{len(spawned)} jobs, {sum(map(len, runs.values()))} runs; "
        + ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        + "; attempts that did not complete their job: " + ", ".join(f"{number} {move}" for move, number in moves)
        + f". After the last fault the rest had ended within {took:.0f} s.", "",
        "| Must be none | Found |", "|---|---|", *[f"| {what} | {found} |" for what, found in checks.items()],
    ]  # fmt: skip
    print("\n".join(lines))
    assert not any(checks.values()), checks
    return lines


def write(lines: list[str]) -> None:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + "\n".join([BEGIN, "", *lines, "", END]) + rest.split(END)[1])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="piecework-faults-"))
    print(f"what the workers said is in {folder}")
    write(asyncio.run(run(seconds, seed, folder)))


if __name__ == "__main__":
    main()
