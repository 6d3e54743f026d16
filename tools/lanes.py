"""Threads that wait for the network, so many per target: a slow one holds up nobody else.

Plain Python: what is sent, and how, is the caller's. Nothing here touches a database.
"""

import contextlib
import queue
import threading
import time
from collections import defaultdict

#: seconds after which a thread with nothing to do ends
IDLE = 2
#: seconds that jobs which are done wait for others
LINGER = 0.02
#: seconds of a job after which another thread may begin the next: Python runs one thread at a time, so where answers
#: come at once more of them only get in each other's way
QUICK = 0.005
#: seconds by which a call is late: the clock that tells what is due is another one
MOMENT = 0.1


class _Lane:
    """The jobs of one target: those that wait, and the threads that take them."""

    def __init__(self):
        self.waiting, self.threads, self.load = queue.SimpleQueue(), 0, 0
        self.begun = float("inf")  # when a thread last took a job


class Lanes:
    """Runs jobs in threads, at most ``width`` at a time per target, and hands them back when they are done.

    A job has ``target``, any hashable, and ``lease``, the ``time.monotonic()`` up to which it may begin.
    """

    def __init__(self, work, width):
        """
        :param work: called with a job, in a thread, unless it is too late for that
        :param int width: connections per target
        """
        self._work, self._width = work, width
        self._lanes, self._done, self._lock = defaultdict(_Lane), queue.SimpleQueue(), threading.Lock()
        self._idle = float("inf")  # since when whoever takes the jobs does nothing but wait

    def put(self, job):
        """Have a job done."""
        lane = self._lanes[job.target]
        lane.load += 1
        lane.waiting.put(job)
        if not lane.threads:
            self._grow(lane)

    @property
    def load(self):
        """How many jobs wait or are being done, or are not taken yet."""
        return sum(lane.load for lane in self._lanes.values())

    def get_load(self, target):
        """Return how many jobs of a target wait or are being done."""
        return self._lanes[target].load

    def get_busy(self):
        """Return the targets whose jobs wait or are being done."""
        return {target for target, lane in self._lanes.items() if lane.load}

    def withdraw(self, target):
        """Take back the jobs of a target that no thread began.

        :rtype: list
        """
        jobs, lane = [], self._lanes[target]
        with contextlib.suppress(queue.Empty):
            while True:
                jobs.append(lane.waiting.get_nowait())
        lane.load -= len(jobs)
        return jobs

    def close(self):
        """Let no thread begin anything more, and those end that have nothing to do; what is on the way goes on."""
        for target, lane in self._lanes.items():
            self.withdraw(target)
            for _thread in range(lane.threads):
                lane.waiting.put(None)

    def take(self, timeout):
        """Wait for a job that is done, and return it with all others that are soon after: noting many costs as one.

        :param float timeout: seconds
        :return: the jobs, also those for which it was too late; empty after the timeout
        :rtype: list
        """
        done, self._idle = [], time.monotonic()
        end = self._idle + timeout
        while not done and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                done.append(self._done.get(timeout=LINGER))
            for lane in self._lanes.values():
                self._grow_if_slow(lane, lane.begun)
        end = time.monotonic() + LINGER
        with contextlib.suppress(queue.Empty):
            while done and len(done) < min(self.load, 500):
                done.append(self._done.get(timeout=max(end - time.monotonic(), 0)))
        self._idle = float("inf")
        for job in done:
            self._lanes[job.target].load -= 1
        return done

    def _grow_if_slow(self, lane, start):
        """Let another thread help with a job that takes long, though nothing else of ours is at work."""
        if time.monotonic() - max(start, self._idle) > QUICK and not lane.waiting.empty():
            self._grow(lane)

    def _grow(self, lane):
        """Let one thread more work for a target, if there is work for it."""
        with self._lock:
            if lane.threads < min(self._width, lane.load):
                lane.threads += 1
                threading.Thread(target=self._run, args=(lane,), name="bj_api_sync.lane", daemon=True).start()

    def _run(self, lane):
        while True:
            try:
                job = lane.waiting.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if lane.waiting.empty():  # else a job came in this very moment
                        lane.threads -= 1
                        return
                continue
            if job is None:  # closed
                return
            start = lane.begun = time.monotonic()
            if start < job.lease:
                self._work(job)
            self._done.put(job)
            self._grow_if_slow(lane, start)


#: a name and the second it is called in -> the timer that waits for it
_timers = {}


def ring(name, due, function):
    """Call a function in a thread a moment after a point in time; who asks for the same name and time shares the call.

    An earlier call does not stand in for a later one: what is due by then may not be found yet.

    :param int due: seconds since 1970
    """
    if (name, due) in _timers:
        return
    timer = _timers[name, due] = threading.Timer(due - time.time() + MOMENT, _ring, [(name, due), function])
    timer.daemon = True
    timer.start()


def _ring(key, function):
    _timers.pop(key, None)
    function()
