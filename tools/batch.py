"""Collects rows and has them written together, a moment later, by a thread of the process."""

import atexit
import logging
import os
import threading

_logger = logging.getLogger(__name__)


class Batch:
    """A bounded queue that a daemon thread empties.

    The thread is started by the first row, so that it lives in the process that adds rows, not in its parent.
    """

    def __init__(self, write, delay=0.5, size=100, bound=1000):
        """
        :param write: called with a list of rows; if it raises it is called once more, then they are given up
        :param float delay: seconds a row waits at most
        :param int size: rows that are written without waiting any longer
        :param int bound: rows that may wait; one more, and whoever adds it does the writing
        """
        self._write, self._delay, self._size, self._bound = write, delay, size, bound
        self._forget()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.flush)

    def _forget(self):
        self._rows, self._thread = [], None
        self._changed, self._writing = threading.Condition(), threading.Lock()

    def add(self, row):
        """Have a row written soon."""
        with self._changed:
            self._rows.append(row)
            waiting = len(self._rows)
            if waiting in (1, self._size):
                self._changed.notify()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="bj_api_sync.batch", daemon=True)
                self._thread.start()
        if waiting >= self._bound:
            self.flush()

    def flush(self):
        """Write what waits, now."""
        with self._writing:
            with self._changed:
                rows, self._rows = self._rows, []
            if rows and not self._try(rows) and not self._try(rows):
                _logger.error("%d rows were given up", len(rows))

    def _try(self, rows):
        try:
            self._write(rows)
        except Exception:  # whatever a write may raise, the thread must go on, and a request must not suffer
            _logger.exception("Writing %d rows failed", len(rows))
            return False
        return True

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows)
                self._changed.wait_for(lambda: len(self._rows) >= self._size, self._delay)
            self.flush()
