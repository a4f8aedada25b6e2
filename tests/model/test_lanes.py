from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from piecework.model.lanes import Call, Lane, allot, calls

Shared: TypeAlias = tuple[frozenset[str], int] | None
Asked: TypeAlias = list[tuple[Lane, int]]


def lane(job_type: str, priority: int = 0, queue: str = "default") -> Lane:
    return Lane(queue, job_type, priority)


def test_a_single_lane_is_asked_for_the_whole_budget() -> None:
    assert allot([lane("a")], 100, {}, None, 0) == [(lane("a"), 100)]


def test_nothing_is_asked_without_lanes_budget_or_room() -> None:
    assert allot([], 100, {}, None, 3) == []
    assert allot([lane("a")], 0, {}, None, 3) == []
    assert allot([lane("a")], 100, {"a": 0}, None, 3) == []
    assert allot([lane("a")], 100, {}, (frozenset({"a"}), 0), 3) == []


def test_lanes_of_one_priority_share_alike_and_take_turns() -> None:
    lanes = [lane("c"), lane("a"), lane("b")]
    assert allot(lanes, 100, {}, None, 0) == [(lane("a"), 34), (lane("b"), 34), (lane("c"), 34)]
    assert allot(lanes, 100, {}, None, 1) == [(lane("b"), 34), (lane("c"), 34), (lane("a"), 34)]


def test_queues_share_alike_and_take_turns() -> None:
    lanes = [lane("a", queue="x"), lane("b", queue="x"), lane("a", queue="y")]
    xa, xb, ya = lanes
    assert allot(lanes, 100, {}, None, 0) == [(xa, 25), (ya, 50), (xb, 25)]
    assert allot(lanes, 100, {}, None, 1) == [(ya, 50), (xa, 25), (xb, 25)]
    assert allot(lanes, 100, {}, None, 2) == [(xb, 25), (ya, 50), (xa, 25)]


def test_further_priorities_follow_in_order_behind_a_lane_that_was_asked_for_all() -> None:
    lanes = [lane("c", 9), lane("a", -5), lane("b", 0)]
    assert allot(lanes, 10, {}, None, 0) == [(lane("a", -5), 10), (lane("b", 0), 10), (lane("c", 9), 10)]


def test_a_worse_priority_waits_while_better_lanes_may_hold_more_than_their_share() -> None:
    lanes = [lane("a", 0), lane("b", 0), lane("c", 1)]
    assert allot(lanes, 10, {}, None, 0) == [(lane("a"), 5), (lane("b"), 5)]
    # Once "a" came back short it is no longer among the lanes, and "b" can be asked for all.
    assert allot(lanes[1:], 4, {}, None, 1) == [(lane("b"), 4), (lane("c", 1), 4)]


def test_a_type_at_its_cap_does_not_hold_up_worse_priorities() -> None:
    lanes = [lane("a", 0), lane("b", 1)]
    assert allot(lanes, 10, {"a": 0}, None, 0) == [(lane("b", 1), 10)]
    assert allot(lanes, 10, {"a": 3}, None, 0) == [(lane("a"), 3), (lane("b", 1), 10)]


def test_a_cap_counts_over_all_lanes_of_its_type() -> None:
    lanes = [lane("a", queue="x"), lane("a", queue="y"), lane("a", 1, queue="x")]
    assert allot(lanes, 100, {"a": 5}, None, 0) == [(lane("a", queue="x"), 3), (lane("a", queue="y"), 2)]


def test_types_that_share_a_room_divide_it() -> None:
    lanes = [lane("a"), lane("b"), lane("c")]
    assert allot(lanes, 90, {}, (frozenset({"a", "b"}), 7), 0) == [(lane("a"), 4), (lane("b"), 3), (lane("c"), 30)]


def test_a_worse_priority_waits_while_a_better_lane_had_to_share_its_room() -> None:
    lanes = [lane("a", 0), lane("b", 1), lane("c", 2)]
    # "a" may have a single job: then 15 threads are left for "b", before "c" has a turn.
    assert allot(lanes, 100, {}, (frozenset({"a", "b"}), 16), 0) == [(lane("a"), 16)]


types = st.sampled_from("abcdef")
lane_sets = st.lists(
    st.builds(Lane, st.sampled_from(["x", "y", "z"]), types, st.integers(-1, 2)), unique=True, min_size=1, max_size=20
)
budgets = st.integers(0, 60)
all_caps = st.dictionaries(types, st.integers(0, 30))
shareds: st.SearchStrategy[Shared] = st.none() | st.tuples(st.frozensets(types), st.integers(0, 30))


def room(job_type: str, budget: int, caps: dict[str, int], shared: Shared) -> int:
    rooms = [budget, caps.get(job_type, budget)]
    if shared is not None and job_type in shared[0]:
        rooms.append(shared[1])
    return min(rooms)


@given(lanes=lane_sets, budget=budgets, caps=all_caps, shared=shareds, rotation=st.integers(0, 10**9))
def test_no_cap_and_no_shared_room_is_ever_exceeded_and_no_lane_asked_for_nothing(
    lanes: list[Lane], budget: int, caps: dict[str, int], shared: Shared, rotation: int
) -> None:
    asked = allot(lanes, budget, caps, shared, rotation)
    per_type: Counter[str] = Counter()
    for asked_lane, n in asked:
        per_type[asked_lane.job_type] += n
        assert 0 < n <= budget
    assert all(per_type[job_type] <= cap for job_type, cap in caps.items())
    if shared is not None:
        assert sum(per_type[job_type] for job_type in shared[0]) <= shared[1]
    names = [asked_lane for asked_lane, _ in asked]
    assert len(set(names)) == len(names)
    assert set(names) <= set(lanes)


@given(lanes=lane_sets, budget=st.integers(1, 60), caps=all_caps, shared=shareds, start=st.integers(0, 10**6))
def test_every_lane_of_the_best_priority_with_room_is_first_in_some_rotation(
    lanes: list[Lane], budget: int, caps: dict[str, int], shared: Shared, start: int
) -> None:
    open_lanes = [one for one in lanes if room(one.job_type, budget, caps, shared) > 0]
    best = {one.queue: min(other.priority for other in open_lanes if other.queue == one.queue) for one in open_lanes}
    tops = {one for one in open_lanes if one.priority == best[one.queue]}
    widest = max((sum(one.queue == queue for one in tops) for queue in best), default=0)
    turns = [allot(lanes, budget, caps, shared, start + turn) for turn in range(len(best) * widest)]
    assert {asked[0][0] for asked in turns} == tops


class Simulation:
    """A claim as the database runs it: the lanes in order, what each has, until the budget is reached."""

    def __init__(self, work: dict[Lane, int], budget: int, caps: dict[str, int], shared: Shared) -> None:
        self.work, self.budget, self.caps = dict(work), budget, dict(caps)
        self.shared: Shared = shared
        self.with_work = set(work)
        self.claimed: Counter[Lane] = Counter()

    def claim(self, asked: Asked) -> None:
        for one, n in asked:
            got = min(n, self.work[one], self.budget)
            if got < min(n, self.budget):
                self.with_work.discard(one)
            self.work[one] -= got
            self.budget -= got
            self.claimed[one] += got
            if one.job_type in self.caps:
                self.caps[one.job_type] -= got
            if self.shared is not None and one.job_type in self.shared[0]:
                self.shared = (self.shared[0], self.shared[1] - got)

    def could_run(self, one: Lane) -> bool:
        return self.work[one] > 0 and room(one.job_type, 1, self.caps, self.shared) > 0


@given(
    lanes=lane_sets, counts=st.lists(st.integers(0, 20), min_size=20, max_size=20),
    budget=budgets, caps=all_caps, shared=shareds, rotation=st.integers(0, 100),
)  # fmt: skip
def test_claims_until_nothing_is_asked_leave_no_room_unused_and_never_prefer_a_worse_priority(
    lanes: list[Lane], counts: list[int], budget: int, caps: dict[str, int], shared: Shared, rotation: int
) -> None:
    run = Simulation(dict(zip(lanes, counts, strict=False)), budget, caps, shared)
    for _ in range(len(lanes) + 1):
        asked = allot(sorted(run.with_work), run.budget, run.caps, run.shared, rotation)
        if not asked:
            break
        run.claim(asked)
        for one in run.claimed:
            for other in lanes:
                better = other.queue == one.queue and other.priority < one.priority
                assert not (run.claimed[one] and better and run.could_run(other)), (one, other)
    assert allot(sorted(run.with_work), run.budget, run.caps, run.shared, rotation) == []
    assert run.budget == 0 or not any(run.could_run(one) for one in lanes)


def test_lanes_of_one_kind_are_claimed_from_together() -> None:
    asked = [(Lane("q", "a", 0), 5), (Lane("q", "b", 0), 5), (Lane("q", "a", 3), 2)]
    assert calls(asked, {}) == [Call(asked, 1)]


def test_lanes_with_concurrency_keys_and_each_batched_job_type_are_claimed_from_apart() -> None:
    plain, keyed = (Lane("q", "a", 0), 5), (Lane("q", "a", 0, keyed=True), 5)
    batched, other, batched_keyed = (Lane("q", "x", 0), 2), (Lane("q", "y", 0), 1), (Lane("q", "x", 0, keyed=True), 2)
    assert calls([plain, batched, keyed, other, batched_keyed], {"x": 25, "y": 10}) == [
        Call([plain], 1), Call([batched], 25), Call([keyed], 1), Call([other], 10), Call([batched_keyed], 25),
    ]  # fmt: skip


def test_no_lane_is_claimed_from_before_one_of_its_queue_whose_priority_is_better() -> None:
    first, second, third = (Lane("q", "a", 0), 5), (Lane("q", "b", 1, keyed=True), 5), (Lane("q", "a", 2), 5)
    elsewhere = (Lane("r", "a", 9), 5)
    assert calls([first, second, elsewhere, third], {}) == [
        Call([first, elsewhere], 1), Call([second], 1), Call([third], 1)
    ]  # fmt: skip


def test_lanes_that_are_claimed_apart_have_a_call_each_and_priorities_stay_in_order() -> None:
    a, b, c, d = lane("a", 0), lane("b", 0), lane("c", 1), lane("d", 0)
    asked = [(a, 1), (b, 2), (d, 3), (c, 4)]
    assert calls(asked, {}, {b}) == [Call([(a, 1), (d, 3)], 1), Call([(b, 2)], 1), Call([(c, 4)], 1)]
    assert calls(asked, {}, {a, b, c, d}) == [Call([each], 1) for each in asked]
    assert calls(asked, {}) == [Call(asked, 1)]
