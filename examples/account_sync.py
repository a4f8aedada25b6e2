"""Keep the bank accounts of customers in step: a class with what it needs, one run per account, and a saved cursor.

Run it: python examples/account_sync.py
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from piecework import CurrentJob, JobRunner, Jobs, Reschedule, RetrySettings


@dataclass
class Sync:
    account: str


@dataclass
class Cursor:
    seen: int = 0


@dataclass
class Bank:
    """Stands for the client of a bank: five entries per account, two on a page, and a line that breaks once."""

    failures: int = 1
    in_step: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])

    async def page(self, account: str, after: int) -> list[int]:
        if after == 2 and account == "ada" and self.failures:
            self.failures -= 1
            raise ConnectionError("the bank hung up")
        entries = list(range(after + 1, min(after + 3, 6)))
        if not entries:
            await self.in_step.put(account)
        return entries


class SyncAccount(JobRunner[Sync]):
    job_type = "sync-account"
    retry = RetrySettings(n_attempts=None, min_backoff=timedelta(milliseconds=100))

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def key(self, config: Sync, /) -> str:
        """One live job per account: spawning it again gives a handle of that one."""
        return config.account

    def concurrency_key(self, config: Sync, /) -> str:
        """At most one job at a time that works on this account, of whatever type."""
        return f"account:{config.account}"

    async def run(self, job: CurrentJob[Sync]) -> Reschedule:
        account = job.config.account
        cursor = job.execution_state(Cursor) or Cursor()
        while not job.shutdown_requested:
            entries = await self.bank.page(account, cursor.seen)
            if not entries:
                return Reschedule.after(timedelta(minutes=5))
            cursor.seen = entries[-1]
            await job.save_state(cursor)
            print(f"{account}: entries {entries} in attempt {job.attempt}")
        return Reschedule.now()


async def main() -> None:
    jobs, bank = Jobs(), Bank()
    accounts = jobs.add(SyncAccount(bank))
    async with jobs, jobs.worker():
        handles = await jobs.spawn_all(accounts.spec(Sync(name)) for name in ("ada", "grace"))
        print("spawned again:", (await accounts.spawn(Sync("ada"))).created)
        print("in step:", sorted([await bank.in_step.get() for _ in handles]))
        # They would come back every five minutes, for ever. Here they are ended.
        print("cancelled:", await handles.cancel())


if __name__ == "__main__":
    asyncio.run(main())
