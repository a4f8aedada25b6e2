"""A job that is always there, once, whatever runs: it sweeps expired carts away at every full hour.

Run it: python examples/hourly_sweep.py
"""

import asyncio
from datetime import UTC, datetime, timedelta

from piecework import Jobs, Reschedule

jobs = Jobs()

# Stands for a table, and for a log of what was swept.
carts = {"ada": datetime.now(UTC) - timedelta(days=1), "grace": datetime.now(UTC) + timedelta(days=1)}
swept: asyncio.Queue[list[str]] = asyncio.Queue()


def next_full(every: timedelta, now: datetime) -> datetime:
    """The next full hour, where `every` is an hour: not an hour after the end of this run, so nothing drifts."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + ((now - midnight) // every + 1) * every


@jobs.resident
async def sweep(every: timedelta) -> Reschedule:
    now = datetime.now(UTC)
    expired = [owner for owner, expires_at in carts.items() if expires_at < now]
    for owner in expired:
        del carts[owner]
    await swept.put(expired)
    # It cannot end: the type checker wants a Reschedule, and an error is tried again, however often. Where the clock of
    # this machine is behind the database's, it may run twice at a full hour.
    return Reschedule.at(next_full(every, now))


async def main() -> None:
    async with jobs, jobs.worker():
        # Every process may do this when it starts: there is one job of the type. An hour would be long to watch.
        handle = await sweep.spawn(timedelta(seconds=1))
        again = await sweep.spawn(timedelta(seconds=1))
        print("spawned:", handle.created, again.created)
        for _ in range(3):
            print("swept:", await swept.get())
        # For the next demonstration. An operator ends it by `piecework jobs cancel ID`.
        print("cancelled:", await handle.cancel())


if __name__ == "__main__":
    asyncio.run(main())
