"""Turn off what keeps jobs whole, one safeguard at a time, and see the test fail that says what it is good for.

Each mutation is a replacement of text in a temporary copy of the tree: `make mutants`, or `make mutants ARGS=watchdog`.
Without names all are tried, and the table in docs/reliability.md is written anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- mutants: written by tools/mutants.py -->", "<!-- mutants: end -->"
FAILED, PASSED = 1, 0  # exit codes of pytest; every other one is no verdict
LONGEST = 180  # seconds for one test


@dataclass(frozen=True)
class Mutation:
    """`changes`: file below src/piecework, text of it, what stands there instead. The text must be there once."""

    name: str
    without: str
    test: str
    changes: tuple[tuple[str, str, str], ...]


LOST = "tests/faults/test_lost_answers.py::"
SILENCE = "tests/faults/test_silence.py::"
COMPLETING = "tests/completing/"
SIMULATED = "tests/simulation/test_seeds.py::test_a_run_in_which_much_depends_on_one_guard_goes_well"

MUTATIONS = (
    Mutation(
        "watchdog", "the watchdog: nobody stops the runs of a worker whose lease ends",
        "tests/faults/test_cut_off.py::"
        "test_ten_workers_that_are_cut_off_stop_their_async_runs_before_another_starts_them",
        (("engine/worker.py", "        self._watchdog.start()\n", ""),),
    ),
    Mutation(
        "exit", "the end of the process: a plain function that cannot be stopped goes on",
        "tests/faults/test_cut_off.py::test_the_process_that_runs_a_plain_function_is_gone_before_another_runs_it",
        (("engine/worker.py", "        self._surroundings.end_process(_EXIT_CUT_OFF)\n", "        pass\n"),),
    ),
    Mutation(
        "audit", "the self-audit: what was claimed and not heard of is not handed back",
        LOST + "test_jobs_of_a_claim_whose_connection_broke_all_run_once[answer-100]",
        (("engine/claimer.py", "        if orphans:\n", "        if not orphans:\n"),),
    ),
    Mutation(
        "resend", "the resend: a settle without an answer is taken for done",
        LOST + "test_ends_of_jobs_whose_settle_is_unknown_land_once[request-10]",
        (("engine/completer.py",
          "                self._put_back(worker_id, batch)\n                await self._link.pause()\n",
          "                self._take_answers(worker_id, batch, ['landed'] * len(batch))\n"
          "                await self._link.pause()\n"),),
    ),
    Mutation(
        "ordered locks", "the order of locks: a spawn takes its rows as they come",
        "tests/store/test_locks.py::"
        "test_two_spawns_of_the_same_chosen_ids_in_opposite_orders_do_not_wait_for_each_other",
        (("store/functions/spawn_1.sql", "    ORDER BY j.id;\n", "    ;\n"),),
    ),
    Mutation(
        "ordered keys", "the order of locks: the rows of concurrency keys are taken as they come",
        "tests/store/test_locks.py::test_the_rows_of_keys_are_locked_in_one_order_however_they_are_named",
        (("store/functions/lock_keys_1.sql", " ORDER BY u.queue, u.key) AS u\n", ") AS u\n"),),
    ),
    Mutation(
        "horizon", "the horizon in the sleep protocol: who is declared idle sleeps at once",
        "tests/faults/test_open_spawn.py::test_it_runs_soon_after_its_commit",
        (("engine/idleness.py", "self.declared, self._horizon = True, horizon\n",
          "self.declared, self._horizon = True, None\n"),),
    ),
    Mutation(
        "reserved connection", "the heartbeat's own connection: it takes turns with claims and settles, as on one",
        SILENCE + "test_a_frozen_back_end_is_given_up_and_what_runs_is_not_disturbed[claim]",
        (
            ("store/link.py", "            with translated(self.dsn), self.deadline(conn):\n",
             "            async with _Turn():\n              with translated(self.dsn), self.deadline(conn):\n"),
            ("store/link.py", "                cursor = await conn.execute(self.statements.sql(statement), params)\n",
             "                  cursor = await conn.execute(self.statements.sql(statement), params)\n"),
            ("store/link.py",
             "                row = await cursor.fetchone() if cursor.description is not None else None\n",
             "                  row = await cursor.fetchone() if cursor.description is not None else None\n"),
            ("store/link.py", "class DatabaseHealth:\n",
             "import threading\nTURNS = threading.Lock()\nclass _Turn:\n"
             "    async def __aenter__(self): await asyncio.to_thread(TURNS.acquire)\n"
             "    async def __aexit__(self, *_): TURNS.release()\n\n\nclass DatabaseHealth:\n"),
            ("store/liveness.py", "            with translated(self._dsn):\n",
             "            from piecework.store.link import TURNS\n            with TURNS, translated(self._dsn):\n"),
        ),
    ),
    Mutation(
        "deadlines", "the deadline of a statement: who has no answer waits for it",
        SILENCE + "test_a_frozen_back_end_is_given_up_and_what_runs_is_not_disturbed[settle]",
        (("store/link.py", "call_later(self._deadline, self._wire.sever, conn)",
          "call_later(1e6, self._wire.sever, conn)"),),
    ),
    Mutation(
        "probe", "the question on the LISTEN connection whether the other end is there",
        SILENCE + "test_a_listen_that_nobody_answers_any_more_is_noticed[half open]",
        (("store/listening.py", "timeout=probe_every)", "timeout=1e6)"),),
    ),
    Mutation(
        "unbroken time", "the observer's doubt: it condemns for silence in a time in which it was cut off itself",
        "tests/faults/test_outage.py::"
        "test_after_an_outage_longer_than_the_lease_all_jobs_end_and_no_attempt_is_spent",
        (("model/observation.py", "        cut_off = self._last is not None and now - self._last > self._max_gap\n",
          "        cut_off = False\n"),),
    ),
    Mutation(
        "guard", "the guard: a transaction is committed without the completion that it was to bring",
        COMPLETING + "test_fence.py::"
        "test_with_a_guard_a_lost_claim_that_is_swallowed_in_a_savepoint_fails_the_commit[True-with_psycopg]",
        (("store/functions/guard_1.sql", "    ORDER BY 1\n", "    ORDER BY 1 LIMIT 0\n"),),
    ),
    Mutation(
        "held row", "the lock of a write: a job is settled while its state is being saved",
        "tests/store/test_run_writes.py::test_while_a_save_is_uncommitted_nobody_settles_or_rescues_the_job[pg18]",
        (("store/functions/save_state_1.sql", "    FOR KEY SHARE;\n", "    LIMIT 1;\n"),),
    ),
    Mutation(
        "verification", "the look at what became of a transaction: a run that returns is done",
        COMPLETING + "test_table.py::test_a_transaction_that_is_never_committed_is_a_failed_attempt[pg18]",
        (("engine/verdicts.py", "held.current is not None and sent_by(held.current) is not None:", "False:"),),
    ),
    Mutation(
        "fence", "the fence: a settle names the job alone",
        "tests/races/test_fence.py::"
        "test_late_settles_of_a_worker_that_was_given_up_for_dead_change_no_row_and_it_goes_on_under_a_new_id",
        (("store/functions/settle_1.sql",
          "                WHERE j.id = u.id AND j.claim_no = u.claim_no AND coalesce(j.worker_id = p_worker, false)\n",
          "                WHERE j.id = u.id\n"),),
    ),
    Mutation(
        "reconciling look", "the look of a worker that sleeps: it relies on hints alone",
        "tests/engine/test_sleeping.py::"
        "test_a_job_that_nobody_hinted_at_is_found_by_the_look_of_a_calm_worker",
        (("engine/agenda.py", "now + (longest if calm else", "now + (1e9 if calm else"),),
    ),
    Mutation(
        "lease at the begin", "the look at the lease before a run begins: a loop that hung goes on with what waited",
        "tests/engine/test_given_up.py::test_when_its_lease_is_over_it_begins_none_of_what_it_had_prefetched",
        (("engine/executor.py", "await (call if self._leased() else too_late(held))()", "await call()"),),
    ),
    Mutation(
        "hand-over of keys", "the hand-over of keys: the next job of a key stays parked",
        "tests/store/test_concurrency_keys.py::"
        "test_when_a_job_ends_the_next_one_of_its_key_comes_back_into_its_lane[pg18]",
        (("store/functions/free_keys_1.sql", "            WHERE head.parked))\n", "            WHERE false))\n"),),
    ),
    Mutation(
        "sweep", "the sweep: a key whose holder ended in a transaction of the user's is held for ever",
        "tests/store/test_concurrency_keys.py::test_the_sweep_frees_a_key_whose_holder_ended_without_it[pg18]",
        (("store/functions/sweep_keys_1.sql",
          "        PERFORM free_keys_1(ARRAY[v_key.tid], v_key.running, false);\n", ""),),
    ),
    Mutation(
        "watchdog, simulated", "the watchdog: nobody stops the runs of a worker whose lease ends",
        SIMULATED + "[watchdog]", (("engine/worker.py", "        self._watchdog.start()\n", ""),),
    ),
    Mutation(
        "fence, simulated", "the fence, in the twin of the database in memory: a settle names the job alone",
        SIMULATED + "[fence]",
        (
            ("testing/memory/settles.py", 'job["claim_no"] == claim_no and fenced_by(job, worker)', "True"),
            ("testing/memory/settles.py", 'return job is not None and job["worker_id"] == worker',
             "return job is not None"),
        ),
    ),
    Mutation(
        "audit, simulated", "the self-audit: what was claimed and not heard of is not handed back",
        SIMULATED + "[audit]", (("engine/claimer.py", "        if orphans:\n", "        if not orphans:\n"),),
    ),
    Mutation(
        "resend, simulated", "the resend: a settle without an answer is taken for done",
        SIMULATED + "[resend]",
        (("engine/completer.py",
          "                self._put_back(worker_id, batch)\n                await self._link.pause()\n",
          "                self._take_answers(worker_id, batch, ['landed'] * len(batch))\n"
          "                await self._link.pause()\n"),),
    ),
    Mutation(
        "horizon, simulated", "the horizon in the sleep protocol: who is declared idle sleeps at once",
        SIMULATED + "[horizon]",
        (("engine/idleness.py", "self.declared, self._horizon = True, horizon\n",
          "self.declared, self._horizon = True, None\n"),),
    ),
    Mutation(
        "unbroken time, simulated", "the observer's doubt: it condemns for silence in a time in which it was cut off",
        SIMULATED + "[unbroken time]",
        (("model/observation.py", "        cut_off = self._last is not None and now - self._last > self._max_gap\n",
          "        cut_off = False\n"),),
    ),
    Mutation(
        "capacity", "capacity before start: whatever was claimed begins",
        SIMULATED + "[capacity]",
        (("engine/capacity.py", "return self.started < self._concurrency", "return True"),),
    ),
    Mutation(
        "heartbeat", "the heartbeat: a worker registers, and beats no more",
        SIMULATED + "[heartbeat]",
        (("engine/heartbeat.py",
          '        self._thread = self._surroundings.start_thread("job-heartbeat", self._run)\n', ""),),
    ),
    Mutation(
        "hand-over", "the hand-over of keys, in the twin of the database in memory: the next job of a key stays parked",
        SIMULATED + "[hand-over of keys]",
        (("testing/memory/keys.py", "    lanes = yield from _unpark(db, txn, waited_for, now)\n", "    lanes = []\n"),),
    ),
)  # fmt: skip


class Copy:
    """A copy of the tree as it is now, with the same virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in files:
            if name and (ROOT / name).is_file():
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        if not (self.root / ".venv").exists():
            (self.root / ".venv").symlink_to(ROOT / ".venv")

    def run(self, test: str) -> tuple[int, str]:
        """Run one test; returns pytest's exit code and what it said."""
        command = [str(ROOT / ".venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x", test]
        command += ["-o", f"timeout={LONGEST}"]
        environment = {**os.environ, "PYTHONPATH": "src:tests", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout + done.stderr

    def mutate(self, mutation: Mutation) -> dict[Path, str]:
        """Change the copy; returns what stood there before."""
        before: dict[Path, str] = {}
        for name, old, new in mutation.changes:
            path = self.root / "src" / "piecework" / name
            text = path.read_text()
            before.setdefault(path, text)
            if text.count(old) != 1:
                sys.exit(f"mutation {mutation.name!r}: {name} has this {text.count(old)} times, not once:\n{old}")
            path.write_text(text.replace(old, new))
        return before


def judge(copy: Copy, mutation: Mutation) -> str:
    """Return how the test failed, in a line; a test that does not fail, or fails anyway, ends the program."""
    code, said = copy.run(mutation.test)
    if code != PASSED:
        sys.exit(f"{mutation.test} does not pass as the code is (exit code {code}): {reason(said)}\n{said[-3000:]}")
    before = copy.mutate(mutation)
    try:
        code, said = copy.run(mutation.test)
    finally:
        for path, text in before.items():
            path.write_text(text)
    if code != FAILED:
        sys.exit(f"without {mutation.without}:\n{mutation.test} did not fail (exit code {code}):\n{said[-3000:]}")
    return reason(said)


def reason(said: str) -> str:
    """The first error that pytest shows."""
    reasons = re.findall(r"^E   +(\S.*)$", said, re.MULTILINE)
    return reasons[0] if reasons else "failed"


def write(done: list[Mutation]) -> None:
    lines = [BEGIN, "", f"On {time.strftime('%Y-%m-%d')}, by `make mutants`:", ""]
    lines += ["| Turned off | Caught by |", "|---|---|"]
    for mutation in done:
        path, name = mutation.test.split("::")
        lines.append(f"| **{mutation.name}**: {mutation.without} | `{path}`: {name.replace('_', ' ')} |")
    lines += ["", END]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + "\n".join(lines) + rest.split(END)[1])


def main() -> None:
    wanted = sys.argv[1:]
    names = [each.name for each in MUTATIONS]
    if unknown := set(wanted) - set(names):
        sys.exit(f"no mutation {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    done: list[Mutation] = []
    with tempfile.TemporaryDirectory(prefix="piecework-mutants-") as folder:
        os.chmod(folder, 0o755)
        copy = Copy(Path(folder))
        for mutation in MUTATIONS:
            if not wanted or mutation.name in wanted:
                print(f"without {mutation.name}: {mutation.test} fails: {judge(copy, mutation)[:160]}", flush=True)
                done.append(mutation)
    if not wanted:
        write(done)


if __name__ == "__main__":
    main()
