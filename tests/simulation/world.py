"""A world with a clock of its own, in which processes with event loops and threads live: in one thread, by a seed.

What happens next is what is due first; how long everything takes is drawn from the seed. An event loop of a process
runs in a greenlet, and so does each of its threads: what blocks there, blocks, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from greenlet import GreenletExit, getcurrent, greenlet

from piecework.base.surroundings import Surroundings

EPOCH = 1_800_000_000.0
TICK = 2e-5


class World:
    """Time, chance, and what is due.

    Args:
        seed: everything follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.trace: list[tuple[float, str, tuple[object, ...]]] = []
        self.problems: list[str] = []
        self.processes: list[Process] = []
        self.hub = getcurrent()
        self.running: Process | None = None
        """Whose turn it is."""
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._ids = 0

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Have something happen at a moment, or now if that has passed."""
        self._count += 1
        heapq.heappush(self._due, (when if when > self.now else self.now, self._count, call))

    def later(self, mean: float, call: Callable[[], object]) -> None:
        """Have something happen after a while, whose mean is given."""
        self.at(self.now + self.chance.expovariate(1.0) * mean, call)

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let happen what is due until a moment, or until it is enough."""
        due = self._due
        while due and due[0][0] <= until and not enough():
            self.now, _, call = heapq.heappop(due)
            self.events += 1
            call()
        if not enough():
            self.now = max(self.now, until)

    def say(self, what: str, *facts: object) -> None:
        """Write something into the trace."""
        self.trace.append((self.now, what, facts))

    def wrong(self, what: str) -> None:
        """Note that something happened which must not."""
        self.say("WRONG", what)
        self.problems.append(what)

    def new_id(self) -> UUID:
        """Return an id in the order of time."""
        self._ids += 1
        ms = int((EPOCH + self.now) * 1000)
        tail = self.chance.getrandbits(48)
        return UUID(int=(ms << 80) | (7 << 76) | ((self._ids & 0xFFF) << 64) | (2 << 62) | tail)

    def close(self) -> None:
        """End all that still lives, so that nothing of it stirs later."""
        for process in self.processes:
            process.close()
        self._due.clear()
        events._set_running_loop(None)


class Agent:
    """What can block: the greenlet of a loop, or of a thread."""

    def __init__(self, process: Process, name: str, body: Callable[[], None]) -> None:
        self.process = process
        self.name = name
        self.blocked = False
        self.turn = 0
        self.done = False
        self.greenlet = greenlet(body, parent=process.world.hub)

    def resume(self) -> None:
        """Go on, called from the hub."""
        process = self.process
        if process.dead or self.done:
            return
        if process.defers(self.resume):
            return
        self.blocked = False
        before, process.current = process.current, self
        process.world.running = process
        self.greenlet.switch()
        process.world.running = None
        process.current = before

    def wake(self, turn: int) -> None:
        """Go on, if it still blocks for the reason that it did then."""
        if self.blocked and self.turn == turn:
            self.turn += 1
            self.resume()

    def block(self) -> None:
        """Let everything else go on, until somebody wakes this. Called by the agent itself."""
        self.blocked = True
        self.process.world.hub.switch()
        if self is self.process.main:
            events._set_running_loop(self.process.loop)


class Flag:
    """`threading.Event` for agents."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False
        self._waiting: list[tuple[Agent, int]] = []

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for agent, turn in waiting:
            self._process.world.later(TICK, lambda agent=agent, turn=turn: agent.wake(turn))

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            agent, world = self._process.agent, self._process.world
            turn = agent.turn
            self._waiting.append((agent, turn))
            if timeout is not None:
                world.at(world.now + timeout, lambda: agent.wake(turn))
            agent.block()
        return self._set


class SimThread(Agent):
    """A thread of a process."""

    def __init__(self, process: Process, name: str, run: Callable[[], None]) -> None:
        super().__init__(process, name, self._body)
        self._run = run
        self._ended = Flag(process)
        process.threads.append(self)
        process.world.later(TICK, self.resume)

    def _body(self) -> None:
        try:
            self._run()
        except GreenletExit:
            raise
        except BaseException as error:
            self.process.world.wrong(f"thread {self.name} of {self.process.name} raised {error!r}")
        self.done = True
        self._ended.set()

    def join(self) -> None:
        while not self.done:
            self._ended.wait()


class SimThreads:
    """The pool of threads of a worker, `engine.threads.Threads`."""

    def __init__(self, process: Process, most: int) -> None:
        self._process = process
        self._free = most
        self._waiting: deque[Callable[[], None]] = deque()

    def submit(self, name: str, call: Any, ended: Any, context: contextvars.Context | None = None) -> None:
        context = contextvars.copy_context() if context is None else context

        def run() -> None:
            value, failure = None, None
            try:
                value = context.run(call)
            except GreenletExit:
                raise
            except BaseException as error:
                failure = error
            ended(value, failure)
            self._free += 1
            if self._waiting:
                self._waiting.popleft()()

        def start() -> None:
            self._free -= 1
            SimThread(self._process, name, run)

        self._waiting.append(start) if self._free <= 0 else start()

    def close(self) -> None:
        pass


class Timer:
    """A call in a while."""

    def __init__(self, process: Process, seconds: float, call: Callable[[], None]) -> None:
        self._process = process
        self._call = call
        self._cancelled = False
        process.world.at(process.world.now + seconds, self._ring)

    def _ring(self) -> None:
        if self._cancelled or self._process.dead:
            return
        if not self._process.defers(self._ring):
            self._call()

    def cancel(self) -> None:
        self._cancelled = True


class SimSurroundings(Surroundings):
    """What a process takes from its machine, in this world."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def monotonic(self) -> float:
        return self._process.monotonic()

    def new_id(self) -> UUID:
        return self._process.world.new_id()

    def flag(self) -> Any:
        return Flag(self._process)

    def start_thread(self, name: str, run: Callable[[], None], *, daemon: bool = True) -> Any:
        return SimThread(self._process, name, run)

    def start_timer(self, name: str, seconds: float, call: Callable[[], None]) -> Any:
        return Timer(self._process, seconds, call)

    def in_this_thread(self, thread: object) -> bool:
        return self._process.agent is thread

    def end_process(self, code: int) -> None:
        process = self._process
        process.world.say("exits", process.name, code)
        process.world.at(process.world.now, process.kill)
        process.at_exit()
        process.agent.block()


class SimLoop(asyncio.AbstractEventLoop):
    """An event loop that runs when its process lets it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ready: deque[events.Handle] = deque()
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._count = 0
        self._running = False
        self._wakes_at = float("inf")
        self.tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._process.monotonic()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        if not self._running:
            self._wake_at(self._process.world.now + TICK)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        handle._scheduled = True
        if not self._running:
            self._wake_at(when - self._process.offset)
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 500:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._process.world.wrong(f"{self._process.name}: {context.get('message')}: {context.get('exception')!r}")

    def _wake_at(self, when: float) -> None:
        """Have the loop run at a moment of the world."""
        world = self._process.world
        when = max(when, world.now)
        if when < self._wakes_at:
            self._wakes_at = when
            world.at(when, self._awake)

    def _awake(self) -> None:
        process = self._process
        if process.world.now < self._wakes_at or process.dead:
            return  # another one is to come
        if process.main.blocked:
            self._wakes_at = float("inf")  # when it goes on, it looks for what has become ready
            return
        if process.defers(self._awake):
            return
        self._wakes_at = float("inf")
        process.main.resume()

    def run_once(self) -> None:
        """Make the calls that are ready, as an event loop does in one round."""
        ready, timers = self._ready, self._timers
        now = self.time() + 1e-9
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        self._running = True
        events._set_running_loop(self)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        self._running = False
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if ready:
            self._wake_at(self._process.world.now + TICK)
        elif timers:
            self._wake_at(timers[0][0] - self._process.offset)


class Process:
    """An operating system's process: an event loop, threads, connections. It may be killed or frozen at any time."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.offset = world.chance.uniform(0, 1e5)
        self.dead = False
        self.frozen_until = 0.0
        self._deferred: list[Callable[[], object]] = []
        self.at_exit: Callable[[], None] = lambda: None
        self.stalls: list[tuple[float, float]] = []
        """When it was kept from running for longer than a moment."""
        self.cut_off_until = 0.0
        self.cut_off: list[tuple[float, float]] = []
        """When the network let nothing through."""
        self.died_at = float("inf")
        self.at_death: list[Callable[[], None]] = []
        self.at_partition: list[Callable[[], None]] = []
        self.loop = SimLoop(self)
        self.main = Agent(self, name, self._main)
        self.threads: list[SimThread] = []
        self.current: Agent | None = None
        self.surroundings = SimSurroundings(self)
        world.processes.append(self)

    def monotonic(self) -> float:
        return self.world.now + self.offset

    @property
    def agent(self) -> Agent:
        """Which of its greenlets runs."""
        assert self.current is not None, "called from outside the process"
        return self.current

    def start(self, main: Callable[[], Coroutine[Any, Any, object]]) -> asyncio.Task[Any]:
        """Run a coroutine as what the process is there for."""
        return self.loop.create_task(main(), name=self.name)

    def _main(self) -> None:
        while True:
            self.loop.run_once()
            self.world.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Block whoever calls, as `time.sleep`."""
        agent, world = self.agent, self.world
        turn = agent.turn
        if seconds > 0.5:
            self.stalls.append((world.now, world.now + seconds))
        world.at(world.now + seconds, lambda: agent.wake(turn))
        agent.block()

    def pause(self, seconds: float) -> None:
        """Block a thread, as `time.sleep`."""
        agent, world = self.agent, self.world
        turn = agent.turn
        world.at(world.now + max(seconds, 0.0), lambda: agent.wake(turn))
        agent.block()

    def kill(self) -> None:
        """SIGKILL."""
        if not self.dead:
            self.dead = True
            self.died_at = self.world.now
            self.world.say("killed", self.name)
            for call in self.at_death:
                call()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.world.say("frozen", self.name, seconds)
        self.stalls.append((self.world.now, self.world.now + seconds))
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.at(self.frozen_until, self.thaw)

    def defers(self, call: Callable[[], object]) -> bool:
        """Whether a call has to wait until the process goes on; then it is made."""
        if self.frozen_until <= self.world.now:
            return False
        self._deferred.append(call)
        return True

    def thaw(self) -> None:
        """Go on, unless it was frozen anew."""
        if self.frozen_until <= self.world.now:
            deferred, self._deferred = self._deferred, []
            for call in deferred:
                self.world.later(TICK, call)

    def partition(self, seconds: float) -> None:
        """Have the network swallow all that goes in or out, for a while."""
        self.world.say("cut off", self.name, seconds)
        self.cut_off.append((self.world.now, self.world.now + seconds))
        self.cut_off_until = max(self.cut_off_until, self.world.now + seconds)
        for call in self.at_partition:
            call()

    def close(self) -> None:
        """Let nothing of it be left."""
        self.dead = True
        for agent in (self.main, *self.threads):
            if agent.greenlet and not agent.done:
                agent.greenlet.throw(GreenletExit)
        for task in self.loop.tasks:
            if not task.done():
                task._log_destroy_pending = False
                try:
                    task.get_coro().close()
                except (RuntimeError, ValueError):
                    pass
