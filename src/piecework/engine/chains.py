"""Jobs of one concurrency key that one claim took beyond the key's limit: they run one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from piecework.engine.held import Chain, Held
from piecework.store.claiming import Chains as Asked
from piecework.store.claiming import Places

_SHORT_RUN = 0.01
_WHOLE = 0.02
"""Seconds that a chain should take."""
_LONGEST = 100
_EWMA = 0.02
_STALE = 2.0
_MOVING = 0.1


class Chains:
    """The jobs that wait for others of their key to end, and how long chains may be. Used on the worker's loop.

    The database counts all of a chain as holders of the key, so no other worker starts one of them. Here as many run
    as the limit of the key allows; whenever one has ended the next one takes its place, in the order of the claim.
    Jobs that wait count for no capacity until then. What waits for two seconds without a move is handed back.

    Args:
        most: how many jobs may wait in all.
        hand_back: called with those that waited for too long.
    """

    def __init__(self, most: int, hand_back: Callable[[Sequence[Held]], None]) -> None:
        self.waiting = 0
        """How many jobs wait."""
        self._most = most
        self._hand_back = hand_back
        self._chains: dict[Chain, None] = {}
        self._means: dict[str, float] = {}
        self._moved = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def asked(self, job_types: Mapping[str, str]) -> Asked | None:
        """Return how long the chains of the next claim may be; None: it is better made in a moment.

        Args:
            job_types: names of lanes, and what these types are called now.
        """
        lengths = {name: self._length(job_type) for name, job_type in job_types.items()}
        room = self._most - self.waiting
        if all(length < 2 for length in lengths.values()) or self._most == 0:
            return Asked({}, 0)
        if room * 4 >= self._most:
            return Asked(lengths, room)
        # As long as what is in hand moves on, longer chains in a moment are better than short ones now.
        return None if self._loop.time() - self._moved < _MOVING else Asked({}, 0)

    def lasted(self, job_type: str, seconds: float) -> None:
        """Note how long a run took: the length of chains follows from it."""
        mean = self._means.get(job_type)
        self._means[job_type] = seconds if mean is None else mean + _EWMA * (seconds - mean)

    def form(self, claims: Sequence[Held], places: Places) -> Iterator[Held]:
        """Yield those of one claim that may begin, and have the others wait for them.

        Args:
            claims: in their order.
            places: how many of a key may run at once.
        """
        first: dict[tuple[str, str], list[Held]] = {}
        for held in claims:
            assert held.job.concurrency_key is not None
            key = held.job.queue, held.job.concurrency_key
            running = first.setdefault(key, [])
            if len(running) < places.get(key, 1):
                running.append(held)
                yield held
            else:
                self._append(held, running)

    def _append(self, held: Held, running: Sequence[Held]) -> None:
        chain = running[0].chain
        if chain is None:
            chain = Chain(deque(), self._loop.time())
            self._chains[chain] = None
            if self._timer is None:
                self._timer = self._loop.call_later(_STALE / 2, self._look)
            for each in running:
                each.chain = chain
        held.chain = chain
        held.waits = True
        chain.line.append(held)
        self.waiting += 1

    def following(self, ended: Held) -> Held | None:
        """Return who takes the place of a run that has ended."""
        chain, ended.chain = ended.chain, None
        if chain is None or not chain.line:
            return None
        following = chain.line.popleft()
        following.waits = False
        self.waiting -= 1
        self._moved = chain.moved = self._loop.time()
        if not chain.line:
            del self._chains[chain]
        return following

    def leave(self, held: Held) -> None:
        """Take a job out of its line: it will not run."""
        chain, held.chain = held.chain, None
        assert chain is not None, "it waits in a chain"
        chain.line.remove(held)
        self.waiting -= 1
        if not chain.line:
            del self._chains[chain]

    def take_all(self) -> list[Held]:
        """Give up all that wait, and return them."""
        return [held for chain in list(self._chains) for held in self._take(chain)]

    def close(self) -> None:
        """Let the timer go."""
        if self._timer is not None:
            self._timer.cancel()

    def _length(self, job_type: str) -> int:
        mean = self._means.get(job_type)
        if mean is None or mean >= _SHORT_RUN:
            return 1
        return max(min(int(_WHOLE / max(mean, 1e-6)), _LONGEST), 1)

    def _take(self, chain: Chain) -> list[Held]:
        line = list(chain.line)
        for held in line:
            self.leave(held)
        return line

    def _look(self) -> None:
        """Hand back what waits for a run that was not as short as those before it."""
        now = self._loop.time()
        for chain in [chain for chain in self._chains if now - chain.moved > _STALE]:
            self._means[chain.line[0].registered.job_type] = 1.0
            self._hand_back(self._take(chain))
        self._timer = self._loop.call_later(_STALE / 2, self._look) if self._chains else None
