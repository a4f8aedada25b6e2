"""Every error that piecework raises on purpose. Each message says what happened, with which value, and what to do next.

PieceworkError
├── ConfigurationError            a setting, a DSN or an environment variable is wrong
├── RegistrationError             a job function that cannot be a job, or a job type registered twice
├── NotOpen                       a Jobs was used before `async with jobs:`, or a resource without a worker
├── AlreadyOpen                   a Jobs was opened a second time while it was open
├── SpawnError                    nothing was spawned
│   ├── InvalidConfig             the arguments do not fit the job, or cannot be serialized (a TypeError)
│   ├── ConfigTooLarge            the encoded config is over the size limit (a ValueError)
│   ├── InvalidOptions            options that contradict each other or have no meaning (a ValueError)
│   └── JobAlreadyExists          a job with the caller's id exists already
├── TransactionError              the caller's transaction cannot be joined, or cannot go on
│   ├── NoTransaction             its connection is in autocommit mode, and no transaction is open
│   └── WrongConnection           no connection that can be joined, or of the other kind: async, sync (a TypeError)
├── ClaimLost                     the run's claim of its job is another's or nobody's: nothing it writes counts
├── NotCommitted                  a run ended its job in a transaction that was never committed
├── BatchOutcomeMismatch          what a batch returned has not exactly one outcome for each of its jobs
├── ProbesSpent                   a failing batch was not searched far enough to know whether this job is to blame
├── JobError                      how a job ended, for whoever waits for it
│   ├── JobErrored
│   ├── JobCancelled
│   ├── JobNotFinished            the wait timed out (a TimeoutError)
│   ├── JobNotFound
│   ├── JobKeyHeld                a finished job cannot be brought back: a live one has its key
│   └── UndecodableResult         a stored result is not of the type that the job function declares today
├── UndecodableConfig             a stored config does not fit the job's parameters of today
├── UndecodableState              a stored execution state is not of the type that was asked for
├── DatabaseError
│   ├── DatabaseUnreachable
│   ├── PermissionDenied
│   ├── MigrationsNeeded          the schema is missing or older than this version
│   └── SchemaTooNew              the schema is newer than this version
└── EmbeddedError                 the embedded server cannot be found or started
"""

from __future__ import annotations


class PieceworkError(Exception):
    """The root of the tree: catch it to catch everything that piecework raises on purpose."""


class ConfigurationError(PieceworkError, ValueError):
    """A setting, a DSN or an environment variable is wrong."""


class RegistrationError(PieceworkError):
    """A function that cannot be a job, or a job type that is registered already."""


class NotOpen(PieceworkError, RuntimeError):
    """A Jobs was used before it was opened, or after it was closed; or a resource while no worker has it open."""


class AlreadyOpen(PieceworkError, RuntimeError):
    """A Jobs was opened a second time while it was open."""


class SpawnError(PieceworkError):
    """The root of what a spawn raises for its input. Nothing was spawned."""


class InvalidConfig(SpawnError, TypeError):
    """The arguments do not fit the job's parameters, or cannot be serialized."""


class ConfigTooLarge(SpawnError, ValueError):
    """The encoded config is larger than the limit of the Jobs."""


class InvalidOptions(SpawnError, ValueError):
    """Options that contradict each other or have no meaning."""


class JobAlreadyExists(SpawnError):
    """A job with the id that the caller chose exists already, live or finished."""


class TransactionError(PieceworkError):
    """The transaction that was to be joined cannot be, or cannot go on: roll it back. Nothing of the call will last."""


class NoTransaction(TransactionError):
    """The connection is in autocommit mode and no transaction is open, so there is nothing to join."""


class WrongConnection(TransactionError, TypeError):
    """What was given is no connection that can be joined, or a blocking one in an awaited call, or the other way."""


class ClaimLost(PieceworkError):
    """The run's claim of its job is lost: its worker was given up for dead, and the job is another's or has ended.

    What the run writes of the job changes nothing any more, and a transaction that was to complete it is not committed.
    """


class NotCommitted(PieceworkError):
    """A run completed its job in a transaction, and that transaction was never committed: the attempt has failed."""


class BatchOutcomeMismatch(PieceworkError):
    """What a batch returned has not exactly one outcome for each of its jobs: their attempts have failed."""


class ProbesSpent(PieceworkError):
    """A batch fails, and its budget of probes was spent before it was known whether because of this job."""


class JobError(PieceworkError):
    """The root of what waiting for a job raises."""


class JobErrored(JobError):
    """The job ended `errored`: its attempts are spent, or it said that it failed."""


class JobCancelled(JobError):
    """The job ended `cancelled`."""


class JobNotFinished(JobError, TimeoutError):
    """The job did not end within the timeout of the wait. It goes on."""


class JobNotFound(JobError, LookupError):
    """No job with this id exists in this schema, live or in the kept history."""


class JobKeyHeld(JobError):
    """The job ended and cannot be brought back, since a live job of its type has its key."""


class UndecodableResult(JobError):
    """A stored result is not of the type that the job function declares today."""


class UndecodableConfig(PieceworkError):
    """A stored config does not fit the job's parameters of today: that attempt fails, the job is kept."""


class UndecodableState(PieceworkError):
    """A stored execution state is not of the type that was asked for."""


class DatabaseError(PieceworkError):
    """The root of what is wrong with the database rather than with the call."""


class DatabaseUnreachable(DatabaseError, ConnectionError):
    """No connection to PostgreSQL could be made, or an open one was lost."""


class PermissionDenied(DatabaseError, PermissionError):
    """The database role lacks a privilege that the call needs."""


class MigrationsNeeded(DatabaseError):
    """The schema is missing, or older than this version of piecework: run `piecework migrate`."""


class SchemaTooNew(DatabaseError):
    """The schema was migrated by a newer piecework, which this version cannot work with."""


class EmbeddedError(PieceworkError):
    """The embedded PostgreSQL server cannot be found or started."""
