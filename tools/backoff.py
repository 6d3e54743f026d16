"""When to try again: the schedule of a delivery, ``Retry-After``, and the rest a target is given."""

import random
import time
from email.utils import parsedate_to_datetime

#: seconds before each further attempt (that of Standard Webhooks): ten attempts in about three days
SCHEDULE = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
JITTER = 0.2
MAX_RETRY_AFTER = 6 * 3600
#: failures in a row after which a target rests, and how long at first and at most (seconds)
BREAKER_FAILURES, BREAKER_FIRST, BREAKER_LAST = 5, 5, 60


def get_delay(attempts):
    """Return the seconds to wait after so many failed attempts, None when it is time to give up.

    :param int attempts: 1 or more
    """
    return jitter(SCHEDULE[attempts - 1]) if attempts <= len(SCHEDULE) else None


def get_rest(failures):
    """Return the seconds a target rests after so many failures in a row; 0 while it need not."""
    if failures < BREAKER_FAILURES:
        return 0
    return jitter(min(BREAKER_FIRST * 2 ** min(failures - BREAKER_FAILURES, 10), BREAKER_LAST))


def jitter(seconds):
    """Spread a time by a fifth, so that many who failed together do not come back together."""
    return seconds * (1 + JITTER * random.uniform(-1, 1))  # noqa: S311  no secret


def parse_retry_after(text):
    """Return what a ``Retry-After`` header asks for in seconds, at most six hours; 0 without one.

    :param str text: seconds or an HTTP date (RFC 9110, section 10.2.3)
    """
    text = (text or "").strip()
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0
    return min(max(seconds, 0), MAX_RETRY_AFTER)
