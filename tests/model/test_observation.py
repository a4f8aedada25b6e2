from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from piecework.model.observation import Observer

LEASE = 18.0
ME, OTHER = "me", "other"


def watch(observer: Observer, times: list[float], beat_no: int = 7, worker: str = OTHER) -> list[list[str]]:
    return [observer.observe(now, [(worker, beat_no, LEASE)]) for now in times]


def test_a_worker_is_dead_once_its_beat_stood_still_for_its_lease() -> None:
    assert watch(Observer(ME, 10), [100, 105, 110, 115, 117.9]) == [[]] * 5
    assert watch(Observer(ME, 10), [100, 105, 110, 115, 118]) == [[]] * 4 + [[OTHER]]


def test_a_beat_in_time_starts_the_lease_anew() -> None:
    observer = Observer(ME, 10)
    assert watch(observer, [0, 5, 10, 15]) == [[]] * 4
    assert watch(observer, [17, 22, 27, 32, 34.9], beat_no=8) == [[]] * 5
    assert watch(observer, [35], beat_no=8) == [[OTHER]]


def test_the_lease_is_the_one_that_the_observed_worker_states() -> None:
    observer = Observer(ME, 10)
    rows = [("hasty", 1, 2.0), ("calm", 1, 60.0)]
    assert observer.observe(0, rows) == []
    assert observer.observe(2, rows) == ["hasty"]


def test_no_worker_finds_itself_dead() -> None:
    assert watch(Observer(ME, 10), [0, 9, 18, 27], worker=ME) == [[]] * 4


def test_a_dead_worker_is_named_again_until_its_row_is_gone() -> None:
    observer = Observer(ME, 10)
    assert watch(observer, [0, 9, 18, 23, 28]) == [[], [], [OTHER], [OTHER], [OTHER]]
    assert observer.observe(33, []) == []


def test_a_worker_whose_row_came_back_gets_its_whole_lease() -> None:
    observer = Observer(ME, 10)
    watch(observer, [0, 9])
    observer.observe(17, [])
    assert watch(observer, [18, 27, 35.9, 36]) == [[], [], [], [OTHER]]


def test_a_worker_that_others_took_for_dead_but_beats_again_is_alive() -> None:
    observer = Observer(ME, 10)
    assert watch(observer, [0, 9, 18])[-1] == [OTHER]
    assert watch(observer, [23], beat_no=8) == [[]]


def test_after_an_outage_nobody_is_dead_before_a_whole_lease() -> None:
    observer = Observer(ME, 10)
    watch(observer, [0, 9])
    assert watch(observer, [20, 29, 37.9, 38]) == [[], [], [], [OTHER]]


def test_a_gap_of_exactly_the_bound_is_none() -> None:
    assert watch(Observer(ME, 10), [0, 10, 20]) == [[], [], [OTHER]]


steps = st.lists(
    st.tuples(st.floats(0.1, 25), st.lists(st.booleans(), min_size=3, max_size=3)), min_size=1, max_size=40
)


@given(steps=steps)
def test_only_who_stood_still_for_a_lease_of_unbroken_observation_is_dead_and_all_who_did_are(
    steps: list[tuple[float, list[bool]]],
) -> None:
    observer, now = Observer(ME, 10), 0.0
    beats, still_since = [0, 0, 0], [0.0, 0.0, 0.0]
    observer.observe(now, [(f"w{i}", 0, LEASE) for i in range(3)])
    for step, beating in steps:
        now += step
        for i, beat in enumerate(beating):
            beats[i] += beat
            if beat or step > 10:
                still_since[i] = now
        dead = observer.observe(now, [(f"w{i}", beats[i], LEASE) for i in range(3)])
        assert dead == [f"w{i}" for i in range(3) if now - still_since[i] >= LEASE]


@given(gap=st.floats(10.001, 10_000), beats=st.lists(st.floats(0.1, 10), max_size=20))
def test_nobody_is_dead_at_the_observation_that_ends_a_gap(gap: float, beats: list[float]) -> None:
    observer, now = Observer(ME, 10), 0.0
    for step in [0.0, *beats]:
        now += step
        observer.observe(now, [(OTHER, 1, LEASE)])
    assert observer.observe(now + gap, [(OTHER, 1, LEASE)]) == []
