"""Whether a run kept what is promised."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from piecework.testing.history import Attempt, Cut, Entry, JobHistory, JobRow, Terms
from piecework.testing.history import Judge as HistoryJudge
from piecework.testing.memory.rows import Transaction, Values
from simulation.world import EPOCH

if TYPE_CHECKING:
    from simulation.scenario import Given, Run, Scenario

_PROMPT, _SEEN_WITHIN = 2.0, 35.0
_BY_MOMENTS_OF_ROWS = frozenset({"concurrency limit", "order in a key", "unique key", "fence"})
"""Rules that compare moments of rows: nobody can apply them where the server's clock has stepped."""


def _seconds(moment: int | None) -> float | None:
    return None if moment is None else moment / 1e6


def _row(job: Values) -> JobRow:
    return JobRow(
        job["status"], job["job_type"], job["queue"], job["priority"], job["run_at"] / 1e6, job["created_at"] / 1e6,
        job["claim_no"], job["worker_id"], _seconds(job["started_at"]), _seconds(job["finished_at"]), job["attempt"],
        job["failures"], job["crashes"], job["concurrency_key"], job["concurrency_limit"], job["key"],
    )  # fmt: skip


class Judge:
    """Looks at each commit, each run, and at how it all ends."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._world = scenario.world
        self._database = scenario.server.database
        self._database.committed = self._committed
        self._running: defaultdict[str, list[Run]] = defaultdict(list)
        self._changed: dict[str, float] = {}
        """When the row of a job was last written."""
        self._late: set[str] = set()
        self._landed: dict[tuple[str, int], float] = {}
        """When effects were committed, by job and claim number."""
        self.over = False

    # At each commit

    def _committed(self, txn: Transaction) -> None:
        database = self._database
        for row, before in txn.before.items():
            if row.table is database.jobs:
                self._job_changed(row, before, txn)
                self._changed[row.key] = self._world.now
            elif row.table is database.effects and row.committed is not None:
                self._landed[row.committed["id"], row.committed["claim_no"]] = EPOCH + self._world.now
            elif row.table is database.attempts and row.committed is not None:
                self._attempt_ended(row.committed)
            elif row.table is database.workers and before is not None:
                if row.committed is None or row.committed["given_up_at"] is not None:
                    self._struck_off(before["id"])
            elif row.table is database.finished and before is None and row.committed is not None:
                job = row.committed
                self._world.say("ended", self._number(job["id"]), job["status"], job["claim_no"])
                ends = [each for each in database.finished.rows.values()
                        if each.committed is not None and each.committed["id"] == job["id"]]
                if len(ends) > 1 or database.jobs.rows.get(job["id"]) is not None:
                    self._wrong("ended twice, or lives after its end", job["id"])
                if job["status"] == "completed":
                    self._completed(job)

    def _job_changed(self, row: Any, before: Any, txn: Transaction) -> None:
        after = row.committed
        if before is None and after is not None:
            self._world.say("appears", self._number(after["id"]), after["claim_no"])
        if before is None or after is None:
            return
        if before["worker_id"] is None and after["worker_id"] is not None:
            self._world.say("claimed", self._number(after["id"]), after["claim_no"], after["worker_id"][-4:])
            if after["claim_no"] != before["claim_no"] + 1:
                self._wrong("a claim number did not rise by one", after["id"])
            if after["concurrency_key"] is not None:
                self._key_claimed(after, txn)
        elif before["worker_id"] is not None and after["worker_id"] is None:
            self._world.say("given back", self._number(after["id"]), after["claim_no"])
        if after["failures"] > self._n_attempts() or after["crashes"] > self._max_crashes():
            self._wrong("more attempts than allowed", after["id"])

    def _n_attempts(self) -> int:
        from simulation.scenario import N_ATTEMPTS

        return N_ATTEMPTS

    def _max_crashes(self) -> int:
        from simulation.scenario import MAX_CRASHES

        return MAX_CRASHES

    def _key_claimed(self, job: Any, txn: Transaction) -> None:
        key = job["concurrency_key"]
        mates = [row for row in self._database.jobs.rows.values()
                 if row.committed is not None and row.committed["concurrency_key"] == key]
        running = [row for row in mates if row.committed["worker_id"] is not None]
        if len(running) > self._scenario.limits[key] and len({row.committed["worker_id"] for row in running}) > 1:
            most = self._scenario.limits[key]  # a chain is one worker's, which runs as many at once as may
            self._wrong(f"{len(running)} jobs of {key} are claimed, at most {most} may be", job["id"])
        order = job["priority"], job["run_at"], job["id"]
        # Whoever was claimed with it was free before. What is first and of a lane that gives no more keeps its place.
        free = [row for row in mates if row not in running or row in txn.before]
        asked_at = (EPOCH + txn.began + self._database.skew) * 1e6 - 1000
        room = self._scenario.limits[key] - (len(mates) - len(free))
        first = [
            row for row in free
            if row not in running and (row.committed["priority"], row.committed["run_at"], row.committed["id"]) < order
            and row.committed["run_at"] <= asked_at
            and self._changed.get(row.committed["id"], 0.0) < txn.began and not row.locks
        ]  # fmt: skip
        if len(first) >= room:
            others = ", ".join(str(self._number(row.committed["id"])) for row in first)
            self._wrong(f"of {key} others were passed over: {others}; room was for {room}", job["id"])

    def _completed(self, job: Any) -> None:
        runs = [run for run in self._scenario.runs if run.id == job["id"] and run.claim_no == job["claim_no"]]
        if len(runs) != 1 or not (runs[0].how == "returns" or runs[0].completes):
            ends = [run.how for run in runs]
            self._wrong(f"completed, but its runs of claim {job['claim_no']} ended so: {ends}", job["id"])

    def effects_of_completions(self) -> None:
        """Each completion of a run in its own transaction has its effect, and each effect its end of a claim."""
        database = self._database
        ends = {(row["id"], row["claim_no"]) for row in self._rows(database.finished) if row["status"] == "completed"}
        ends |= {(a["job_id"], a["claim_no"]) for a in self._rows(database.attempts) if a["move"] == "reschedule"}
        effects = [(row["id"], row["claim_no"]) for row in self._rows(database.effects)]
        if len(set(effects)) < len(effects):
            self._wrong("an effect is there twice", effects[0][0])
        if "retry" not in self._scenario.faults:
            for effect in effects:
                if effect not in ends:
                    self._wrong(f"the effect of claim {effect[1]} is there, its completion is not", effect[0])
        for run in self._scenario.runs:
            if run.completes and (run.id, run.claim_no) in ends and (run.id, run.claim_no) not in effects:
                self._wrong(f"claim {run.claim_no} ended in a transaction, without its effect", run.id)

    def _attempt_ended(self, attempt: Any) -> None:
        """An attempt ended otherwise than in completion: was there reason for it?"""
        self._world.say("attempt", self._number(attempt["job_id"]), attempt["claim_no"], attempt["move"])
        if attempt["move"] == "rescue":
            return
        for run in self._scenario.runs:
            if run.id == attempt["job_id"] and run.claim_no == attempt["claim_no"] and run.how == "returns":
                if attempt["move"] != "cancel" and not run.deaf and not run.completes and not run.process.stalls:
                    self._wrong(f"returned, and its claim {run.claim_no} ends in {attempt['move']}", run.id)

    def _struck_off(self, worker_id: str) -> None:
        """A worker has left or was given up for dead: then it must have been silent while the server was there."""
        scenario = self._scenario
        self._world.say("struck off", worker_id[-4:])
        for host in scenario.hosts:
            process = host.process
            if host.worker is None or host.worker.worker_id != worker_id or host.done or host.stop or process.dead:
                continue
            if not process.stalls and not process.cut_off and not scenario.weather.counts:
                self._wrong(f"{process.name} was given up for dead, and had beaten whenever it could", "")

    def look(self) -> None:
        """Look, from time to time while nothing goes wrong, whether something is due and lies there."""
        scenario, database, now = self._scenario, self._database, self._world.now
        living = [host for host in scenario.hosts if host.lives and host.worker is not None]
        if living and not any(host.worker._executor.held for host in living):
            for row in database.jobs.rows.values():
                job = row.committed
                if job is None or job["worker_id"] is not None or row.locks:
                    continue
                due = (job["run_at"] / 1e6 - EPOCH) - database.skew
                since = max(due, self._changed[job["id"]], scenario.calm_at + 30)
                if now - since > _SEEN_WITHIN and job["id"] not in self._late:
                    self._late.add(job["id"])
                    parked = "parked" if job["parked"] else "free"
                    self._wrong(f"is due since {now - since:.0f} s, {parked}, and nobody takes it", job["id"])
        if living:
            self._look_for_the_dead()
        if not self.over:
            self._world.at(now + 5, self.look)

    def _look_for_the_dead(self) -> None:
        """What a killed worker held is given back in time, while others live."""
        scenario, now = self._scenario, self._world.now
        died = {host.worker.worker_id: host.process.died_at for host in scenario.hosts
                if host.worker is not None and host.process.dead}
        for row in self._database.jobs.rows.values():
            if row.committed is None or (since := died.get(row.committed["worker_id"])) is None:
                continue
            since = max(since, scenario.calm_at + 30)
            if now - since > _SEEN_WITHIN and row.committed["id"] not in self._late:
                self._late.add(row.committed["id"])
                self._wrong(f"is held by a worker that died {now - since:.0f} s ago", row.committed["id"])

    # At each run

    def began(self, run: Run) -> None:
        """Look who else runs the same job, or a job of the same key."""
        world, scenario = self._world, self._scenario
        world.say("runs", self._number(run.id), run.claim_no, run.process.name)
        others = self._alive(run.id)
        for other in others:
            if not self._excused(other):
                self._wrong(f"runs in {other.process.name} (claim {other.claim_no}) and in {run.process.name} (claim "
                            f"{run.claim_no})", run.id)
        self._running[run.id].append(run)
        if [other for other in others if other.process is run.process]:
            self._wrong(f"runs twice in {run.process.name}", run.id)
        here = [each for runs in self._running.values() for each in runs
                if each.process is run.process and each.ended > world.now]
        units = {each.unit or (each.id, each.claim_no) for each in here}
        if len(units) > scenario.settings.concurrency and not any(each.deaf for each in here):
            most = scenario.settings.concurrency
            self._wrong(f"{len(units)} jobs or batches run in {run.process.name}, at most {most} may", run.id)
        key = scenario.given[run.id].spec.concurrency_key
        if key is not None:
            mates = [other for id, runs in self._running.items() if scenario.given[id].spec.concurrency_key == key
                     for other in self._alive(id)]
            if len(mates) > scenario.limits[key] and not any(self._excused(other) for other in mates):
                self._wrong(f"{len(mates)} jobs of {key} run, at most {scenario.limits[key]} may", run.id)

    def _alive(self, id: str) -> list[Run]:
        now = self._world.now
        return [run for run in self._running[id] if run.ended > now and not run.process.dead]

    def _excused(self, run: Run) -> bool:
        """What nobody can promise: its process stood still, or it takes no notice of being stopped."""
        stood_still = any(end >= run.began - 1 for _, end in run.process.stalls)
        return run.deaf or stood_still or self._landed_at(run) is not None

    def _landed_at(self, run: Run) -> float | None:
        """When the transaction in which a run ended its job was committed: since then it waits for an answer."""
        return self._landed.get((run.id, run.claim_no)) if run.completes else None

    def ended(self, run: Run) -> None:
        """Note the end of a run."""
        self._world.say("stops", self._number(run.id), run.claim_no, run.how)

    # In the end

    def all_ended(self) -> bool:
        """Whether no job is left."""
        return not self._database.jobs.rows

    def at_rest(self) -> None:
        """Look at what is left when all should be done."""
        self.over = True
        scenario, database = self._scenario, self._database
        for row in database.jobs.rows.values():
            self._wrong(f"never ended: {row.committed}", str(row.key))
        ended = {row.committed["id"] for row in database.finished.rows.values() if row.committed is not None}
        for given in scenario.given.values():
            if given.accepted and given.holder is None and given.id not in ended and given.id not in database.jobs.rows:
                self._wrong("was lost", given.id)
            if given.holder is not None and given.holder not in scenario.given:
                self._wrong(f"was refused for {given.holder}, which nobody knows", given.id)
            if given.probe and given.accepted and not given.waits_for_others:
                self._prompt(given)
        for key in database.keys.rows.values():
            if key.committed is not None and key.committed["running"]:
                self._wrong(f"the key {key.key} is held by {key.committed['running']}", "")
        if database.cancels.rows and any(r.committed["job_id"] in ended for r in database.cancels.rows.values()):
            self._world.say("requests are left")
        for host in scenario.hosts:
            if host.lives and host.worker is not None:
                self._empty(host)
        self._history()
        self.effects_of_completions()
        if scenario.server.deadlocks:
            self._wrong(f"{scenario.server.deadlocks} deadlocks", "")

    def _empty(self, host: Any) -> None:
        capacity, executor = host.worker._executor.capacity, host.worker._executor
        left = {name: n for name, n in capacity._held.items() if n}
        if executor.held or capacity.held or capacity.started or left or capacity.waiting:
            self._wrong(f"{host.process.name} holds {list(executor.held)}, capacity {capacity.held} held, "
                        f"{capacity.started} started, {left}", "")

    def _prompt(self, given: Given) -> None:
        first = min((run.began for run in self._scenario.runs if run.id == given.id), default=float("inf"))
        if first > given.at + _PROMPT:
            self._wrong(f"was spawned at {given.at:.3f} with nothing wrong, and started {first - given.at:.1f} s later",
                        given.id)

    def _history(self) -> None:
        """Have the history judged as that of a real database is."""
        scenario, database = self._scenario, self._database
        one_clock = "step" not in scenario.faults
        runs: defaultdict[str, list[Entry]] = defaultdict(list)
        for run in scenario.runs:
            runs[run.id].append(Entry("began", run.claim_no, run.process.name, EPOCH + run.began))
            if run.ended < float("inf") or run.completes:
                # One that ended its job itself may have raised when the answer to its commit was lost.
                well = run.how in ("returns", "reschedules", "fails") or run.completes
                ended = min(EPOCH + min(run.ended, run.process.died_at), self._landed_at(run) or float("inf"))
                runs[run.id].append(Entry("ended", run.claim_no, run.process.name, ended, well))
        again = {(a["job_id"], a["claim_no"]) for a in self._rows(database.attempts) if a["move"] == "reschedule"}
        for effect in self._rows(database.effects):
            if (effect["id"], effect["claim_no"]) in again or "retry" in scenario.faults:
                continue  # the history knows of effects of completions alone, and of the last end of a job
            entry = Entry("effect", effect["claim_no"], effect["process"], effect["at"] / 1e6)
            runs[effect["id"]].append(entry)
        excused = {run.id for run in scenario.runs if run.deaf}
        cuts = [Cut(p.name, EPOCH + p.died_at) for p in scenario.world.processes if p.dead]
        stalls = [(p.name, *stall) for p in scenario.world.processes for stall in p.stalls]
        cuts += [Cut(name, EPOCH + at, "frozen", EPOCH + end) for name, at, end in stalls]
        types = ("plain", "narrow", "hurried", "blocking", "batched")
        judge = HistoryJudge(Terms(
            whole="retry" not in scenario.faults, cuts=cuts, runs_of=frozenset(types), slack=1.0,
            accepted={id: EPOCH + given.at for id, given in scenario.given.items()
                      if given.accepted and given.holder is None},
            limits={("default", key): most for key, most in scenario.limits.items()},
            n_attempts=dict.fromkeys(types, self._n_attempts()),
            max_crashes=self._max_crashes(),
        ))  # fmt: skip
        for id in scenario.given:
            seen = scenario.given[id].at * 1e6 + EPOCH * 1e6
            ended = [
                _row({**row, "created_at": min(max(row["created_at"], seen), row["finished_at"])})
                for row in self._rows(database.finished) if row["id"] == id
            ]  # fmt: skip
            attempts = [
                Attempt(
                    a["claim_no"], a["worker_id"], a["attempt"], a["move"], _seconds(a["started_at"]),
                    a["ended_at"] / 1e6,
                )
                for a in self._rows(database.attempts) if a["job_id"] == id
            ]  # fmt: skip
            if ended:
                judge.add(JobHistory(id, ended, attempts, runs.get(id, ())))
        for violation in judge.report().violations:
            if excused & set(violation.job_ids) or (violation.rule == "concurrency limit" and excused):
                continue
            if not one_clock and violation.rule in _BY_MOMENTS_OF_ROWS:
                continue
            if violation.rule == "order in a key" and {"hold", "slow"} & set(scenario.faults):
                continue  # whose row somebody holds is passed over, and a claim that takes long sees nothing new
            evidence = "; ".join(violation.evidence)
            self._wrong(f"{violation.rule}: {violation.what}: {evidence}", violation.job_ids[0])

    def _rows(self, table: Any) -> list[Any]:
        return [row.committed for row in table.rows.values() if row.committed is not None]

    def at_the_end(self) -> None:
        """Look whether the workers left as they should."""
        for host in self._scenario.hosts:
            if not host.done and not host.process.dead:
                self._wrong(f"{host.process.name} does not stop", "")
        for row in self._database.workers.rows.values():
            if row.committed is not None and row.committed["given_up_at"] is None:
                if not any(host.process.dead for host in self._scenario.hosts):
                    self._wrong(f"worker {row.key} is still entered", "")

    def _number(self, id: str) -> int | str:
        given = self._scenario.given.get(id)
        return id if given is None else given.number

    def _wrong(self, what: str, id: str) -> None:
        self._world.wrong(f"job {self._number(id)}: {what}" if id else what)
