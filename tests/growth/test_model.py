"""What the model says of machines that nobody has measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.growth.model import GROUP_COMMIT, Costs, Limit, Machine, costs, limits, one_worker, utilisation
from bench.growth.run import Result

COSTS = Costs(
    spawner=6, spawning=8, worker=12, claim=8, settle=5, rest=1, wal_bytes=1_000, flushes=0.002, flush_seconds=0.0005,
    rate=60_000, busy=1, stretch=1, waiting={},
)  # fmt: skip
FAST_DISK = 1e9


def lowest(costs: Costs, cores: int, wal: float = FAST_DISK, *, alone: bool = False) -> Limit:
    return limits(costs, Machine(cores=cores, wal_bytes_per_s=wal), alone=alone)[0]


def test_few_cores_are_the_limit_and_twice_as_many_do_twice_as_much() -> None:
    assert lowest(COSTS, 2) == Limit("CPU", 50_000)
    assert lowest(COSTS, 8) == Limit("CPU", 200_000)


def test_cores_that_were_not_in_use_here_are_not_counted_on_there() -> None:
    assert lowest(replace(COSTS, busy=0.75), 8) == Limit("CPU", 150_000)


def test_a_machine_for_postgresql_alone_pays_for_the_server_only() -> None:
    assert lowest(COSTS, 2, alone=True).jobs_per_s == pytest.approx(2e6 / 22)


def test_with_many_cores_the_log_is_the_limit() -> None:
    assert lowest(COSTS, 96, wal=5e8) == Limit("WAL", 500_000)
    assert lowest(COSTS, 96, wal=2e9) == Limit("flushes", pytest.approx(1_000_000))


def test_a_lock_that_is_waited_for_is_a_limit_and_the_group_commit_is_none() -> None:
    contended = replace(COSTS, waiting={"Lock extend": 0.5, GROUP_COMMIT: 3.0, "LWLock BufferContent": 0.0})
    found = limits(contended, Machine(cores=96, wal_bytes_per_s=FAST_DISK), alone=False)
    assert found[0] == Limit("Lock extend", pytest.approx(120_000)), "half of the time in use at 60,000/s"
    assert {limit.what for limit in found} == {"Lock extend", "CPU", "WAL", "flushes"}
    shared = replace(contended, stretch=4.0)
    assert lowest(shared, 96).jobs_per_s == pytest.approx(480_000), "held a fourth of the time on a core of its own"


@pytest.mark.parametrize("used", [0.01, 0.5, 0.9])
def test_the_use_of_a_lock_is_found_from_the_queue_before_it(used: float) -> None:
    assert utilisation(used * used / (1 - used)) == pytest.approx(used)


def test_a_worker_has_one_core() -> None:
    assert one_worker(COSTS) == Limit("its own CPU", pytest.approx(1e6 / 12))
    assert one_worker(replace(COSTS, claim=20)).what == "its session that claims"


def test_costs_are_the_medians_with_the_most_processes() -> None:
    figures = [
        {"jobs_per_s": rate, "worker_cpu_us": 10.0, "server_cpu_us": 15.0, "claim cpu_us": 8.0, "settle cpu_us": 5.0,
         "wal_bytes": 700.0, "flushes": 0.002, "runnable": 8.0, "waiting: Lock extend": 0.5, "waiting: IO WalSync": 1.0}
        for rate in (60_000.0, 70_000.0, 10_000.0)
    ]  # fmt: skip
    result: Result = {
        "machine": {"cores": 2}, "plan": {}, "flush_seconds": 0.001, "failures": [],
        "figures": {
            "processes 2": [{"jobs_per_s": 1.0}],
            "processes 8": [*figures, {}],
            "spawn": [{"bulk_client_cpu_us": 6.0, "bulk_server_cpu_us": 8.0, "bulk_wal_bytes": 400.0}],
        },
    }  # fmt: skip
    found = costs(result)
    assert found == Costs(
        spawner=6, spawning=8, worker=10, claim=8, settle=5, rest=2, wal_bytes=1_100, flushes=0.002,
        flush_seconds=0.001, rate=60_000, busy=0.75, stretch=4, waiting={"Lock extend": 0.5},
    )  # fmt: skip
    result["figures"]["spawn"] = [{}]
    assert costs(result) is None
