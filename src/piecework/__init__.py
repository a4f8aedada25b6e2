"""piecework: an async, distributed job runner for Python, backed by PostgreSQL."""

from __future__ import annotations

from piecework.base.errors import AlreadyOpen as AlreadyOpen
from piecework.base.errors import BatchOutcomeMismatch as BatchOutcomeMismatch
from piecework.base.errors import ClaimLost as ClaimLost
from piecework.base.errors import ConfigTooLarge as ConfigTooLarge
from piecework.base.errors import ConfigurationError as ConfigurationError
from piecework.base.errors import DatabaseError as DatabaseError
from piecework.base.errors import DatabaseUnreachable as DatabaseUnreachable
from piecework.base.errors import EmbeddedError as EmbeddedError
from piecework.base.errors import InvalidConfig as InvalidConfig
from piecework.base.errors import InvalidOptions as InvalidOptions
from piecework.base.errors import JobAlreadyExists as JobAlreadyExists
from piecework.base.errors import JobCancelled as JobCancelled
from piecework.base.errors import JobError as JobError
from piecework.base.errors import JobErrored as JobErrored
from piecework.base.errors import JobKeyHeld as JobKeyHeld
from piecework.base.errors import JobNotFinished as JobNotFinished
from piecework.base.errors import JobNotFound as JobNotFound
from piecework.base.errors import MigrationsNeeded as MigrationsNeeded
from piecework.base.errors import NotCommitted as NotCommitted
from piecework.base.errors import NotOpen as NotOpen
from piecework.base.errors import NoTransaction as NoTransaction
from piecework.base.errors import PermissionDenied as PermissionDenied
from piecework.base.errors import PieceworkError as PieceworkError
from piecework.base.errors import ProbesSpent as ProbesSpent
from piecework.base.errors import RegistrationError as RegistrationError
from piecework.base.errors import SchemaTooNew as SchemaTooNew
from piecework.base.errors import SpawnError as SpawnError
from piecework.base.errors import TransactionError as TransactionError
from piecework.base.errors import UndecodableConfig as UndecodableConfig
from piecework.base.errors import UndecodableResult as UndecodableResult
from piecework.base.errors import UndecodableState as UndecodableState
from piecework.base.errors import WrongConnection as WrongConnection
from piecework.base.ids import JobId as JobId
from piecework.base.ids import new_id as new_id
from piecework.jobs import Jobs as Jobs
from piecework.model.bisection import ProbeBudget as ProbeBudget
from piecework.model.completion import Fail as Fail
from piecework.model.completion import Reschedule as Reschedule
from piecework.model.explanation import JobExplanation as JobExplanation
from piecework.model.explanation import WaitReason as WaitReason
from piecework.model.retry import RetrySettings as RetrySettings
from piecework.model.settings import LivenessSettings as LivenessSettings
from piecework.model.settings import WorkerSettings as WorkerSettings
from piecework.model.snapshot import ErrorInfo as ErrorInfo
from piecework.model.snapshot import JobOutcome as JobOutcome
from piecework.model.snapshot import JobSnapshot as JobSnapshot
from piecework.model.snapshot import JobStatus as JobStatus
from piecework.model.snapshot import Progress as Progress
from piecework.work.batch import BatchItem as BatchItem
from piecework.work.batch import BatchOutcomes as BatchOutcomes
from piecework.work.batch import CurrentBatch as CurrentBatch
from piecework.work.batched_runner import BatchedJobRunner as BatchedJobRunner
from piecework.work.current_job import CurrentJob as CurrentJob
from piecework.work.function import JobFunction as JobFunction
from piecework.work.handle import JobHandle as JobHandle
from piecework.work.handles import JobHandles as JobHandles
from piecework.work.job_settings import JobSettings as JobSettings
from piecework.work.log_filter import JobLogFilter as JobLogFilter
from piecework.work.placement import SpawnOptions as SpawnOptions
from piecework.work.resource import Resource as Resource
from piecework.work.runner import JobCompletion as JobCompletion
from piecework.work.runner import JobInitializer as JobInitializer
from piecework.work.runner import JobRunner as JobRunner
from piecework.work.runner import ResidentJobRunner as ResidentJobRunner
from piecework.work.spawner import JobSpawner as JobSpawner
from piecework.work.spawner import JobSpec as JobSpec
from piecework.work.spawner import JoinedSpawner as JoinedSpawner

__all__ = [
    "AlreadyOpen",
    "BatchItem",
    "BatchOutcomeMismatch",
    "BatchOutcomes",
    "BatchedJobRunner",
    "ClaimLost",
    "ConfigTooLarge",
    "ConfigurationError",
    "CurrentBatch",
    "CurrentJob",
    "DatabaseError",
    "DatabaseUnreachable",
    "EmbeddedError",
    "ErrorInfo",
    "Fail",
    "InvalidConfig",
    "InvalidOptions",
    "JobAlreadyExists",
    "JobCancelled",
    "JobCompletion",
    "JobError",
    "JobErrored",
    "JobExplanation",
    "JobFunction",
    "JobHandle",
    "JobHandles",
    "JobId",
    "JobInitializer",
    "JobKeyHeld",
    "JobLogFilter",
    "JobNotFinished",
    "JobNotFound",
    "JobOutcome",
    "JobRunner",
    "JobSettings",
    "JobSnapshot",
    "JobSpawner",
    "JobSpec",
    "JobStatus",
    "Jobs",
    "JoinedSpawner",
    "LivenessSettings",
    "MigrationsNeeded",
    "NoTransaction",
    "NotCommitted",
    "NotOpen",
    "PermissionDenied",
    "PieceworkError",
    "ProbeBudget",
    "ProbesSpent",
    "Progress",
    "RegistrationError",
    "Reschedule",
    "ResidentJobRunner",
    "Resource",
    "RetrySettings",
    "SchemaTooNew",
    "SpawnError",
    "SpawnOptions",
    "TransactionError",
    "UndecodableConfig",
    "UndecodableResult",
    "UndecodableState",
    "WaitReason",
    "WorkerSettings",
    "WrongConnection",
    "new_id",
]
