"""Judges what happened to all jobs: nothing lost, nothing doubled, no two runs at once, limits and keys held.

`await check(dsn)` reads a database. `judge(histories)` takes plain values from anywhere, and needs no database.
"""

from __future__ import annotations

from piecework.testing.history.judge import Judge as Judge
from piecework.testing.history.judge import judge as judge
from piecework.testing.history.ledger import Ledger as Ledger
from piecework.testing.history.ledger import this_process as this_process
from piecework.testing.history.reading import by_job as by_job
from piecework.testing.history.reading import check as check
from piecework.testing.history.records import Attempt as Attempt
from piecework.testing.history.records import Entry as Entry
from piecework.testing.history.records import JobHistory as JobHistory
from piecework.testing.history.records import JobRow as JobRow
from piecework.testing.history.records import Run as Run
from piecework.testing.history.terms import RULES as RULES
from piecework.testing.history.terms import Cut as Cut
from piecework.testing.history.terms import Fault as Fault
from piecework.testing.history.terms import Report as Report
from piecework.testing.history.terms import Rule as Rule
from piecework.testing.history.terms import Setback as Setback
from piecework.testing.history.terms import Terms as Terms
from piecework.testing.history.terms import Violation as Violation

__all__ = [
    "RULES", "Attempt", "Cut", "Entry", "Fault", "JobHistory", "JobRow", "Judge", "Ledger", "Report", "Rule", "Run",
    "Setback", "Terms", "Violation", "by_job", "check", "judge", "this_process",
]  # fmt: skip
