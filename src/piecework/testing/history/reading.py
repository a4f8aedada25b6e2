"""Reads a history out of a database and judges it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from piecework.store.history import Reader
from piecework.testing.history.judge import Judge
from piecework.testing.history.records import Entry, JobHistory
from piecework.testing.history.terms import Report, Terms

_decode_job = msgspec.json.Decoder(JobHistory).decode
_decode_entries = msgspec.json.Decoder(tuple[str, tuple[Entry, ...]]).decode


async def check(
    dsn: str,
    *,
    schema: str = "piecework",
    terms: Terms | None = None,
    entries: Mapping[str, Sequence[Entry]] | None = None,
) -> Report:
    """Read the history of a schema and judge it: each job has one end, no claim ended twice, and all of `RULES`.

    All is read in one snapshot, job by job, so that a million jobs need no memory; jobs may go on meanwhile, if the
    terms say so. The ledger of the schema is read as well, where there is one.

    Args:
        dsn: any libpq connection string. The role needs SELECT on the schema's tables.
        schema: holds piecework's tables.
        terms: what is known besides; without it that all jobs have ended, and that all of the history is there.
        entries: what runs entered into a ledger elsewhere, by job id; added to what is in the database.

    Raises:
        DatabaseUnreachable, DatabaseError, MigrationsNeeded, PermissionDenied
    """
    terms = terms or Terms()
    elsewhere = dict(entries or {})
    async with Reader.of(dsn, schema) as reader:
        limits = {(queue, key): most for queue, key, most in await reader.limits()}
        judge = Judge(replace(terms, limits={**limits, **terms.limits}), await reader.workers())
        async for history in _merged(reader):
            more = elsewhere.pop(history.id, ())
            judge.add(msgspec.structs.replace(history, entries=(*history.entries, *more)) if more else history)
    for job, written in elsewhere.items():
        judge.add(JobHistory(job, entries=written))
    return judge.report()


async def _merged(reader: Reader) -> AsyncIterator[JobHistory]:
    """Put what the rows and what the ledger says of each job together: both come in the order of the ids."""
    ledger = reader.entries()
    ahead = await anext(ledger, None)
    async for text in reader.jobs():
        history = _decode_job(text)
        written: tuple[Entry, ...] = ()
        while ahead is not None:
            job, of_job = _decode_entries(ahead)
            if job > history.id:
                break
            if job < history.id:
                yield JobHistory(job, entries=of_job)
            else:
                written = of_job
            ahead = await anext(ledger, None)
        yield msgspec.structs.replace(history, entries=written) if written else history
    while ahead is not None:
        job, of_job = _decode_entries(ahead)
        yield JobHistory(job, entries=of_job)
        ahead = await anext(ledger, None)


def by_job(written: Iterable[tuple[str, Entry]]) -> dict[str, list[Entry]]:
    """Gather the entries of a ledger by the ids of their jobs."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for job, entry in written:
        found[job].append(entry)
    return dict(found)
