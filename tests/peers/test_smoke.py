"""When the short bench says that piecework is too slow."""

from __future__ import annotations

import pytest

from bench import smoke


def never(name: str) -> list[float]:
    raise AssertionError(f"{name} was measured once more")


@pytest.mark.parametrize("found", [[0.51, 0.55, 0.6], [0.3, 0.4, 0.49]])
def test_rounds_that_agree_are_not_repeated(found: list[float]) -> None:
    assert smoke.judge({"drain": found}, never) == {"drain": found}


def test_rounds_that_disagree_are_made_once_more_and_all_of_them_count() -> None:
    asked: list[str] = []

    def again(name: str) -> list[float]:
        asked.append(name)
        return [0.49, 0.61, 0.62]

    judged = smoke.judge({"drain": [0.48, 0.49, 0.52], "steady": [0.6, 0.7]}, again)
    assert asked == ["drain"]
    assert judged == {"drain": [0.48, 0.49, 0.52, 0.49, 0.61, 0.62], "steady": [0.6, 0.7]}
    assert smoke.fast_enough(judged["drain"])


def test_the_median_of_all_rounds_decides() -> None:
    assert smoke.fast_enough([0.4, 0.5, 0.6])
    assert not smoke.fast_enough([0.4, 0.49, 0.9])
