"""What `_make_outbound_http_request` returns: made for people who write server actions."""

from collections.abc import Mapping


class Result(Mapping):
    """What came of one request, or of several (``results`` has one for each then).

    Reads as attributes (``result.status_code``) and as a mapping (``result['status_code']``,
    ``result.get('success')``), and is true where it is a success. Of several requests, the first that failed
    speaks for the whole, else the last.
    """

    __slots__ = ("__dict__", "_exchange")  # all other attributes are keys

    def __init__(self, exchange=None, *, error="", record_ids=(), results=None, skipped=0):
        """
        :param exchange: the finished exchange, None where nothing was sent
        :param str error: why nothing was sent
        :param record_ids: the ids of the records that were, or should have been, sent
        :param results: the results this one sums up
        :param int skipped: how many records the filter domain kept back
        """
        self.error = error or (exchange.error if exchange else "")
        self.success = self.ok = not self.error
        self.status_code = exchange.status_code if exchange else 0
        self.text = exchange.text if exchange else ""
        self.headers = exchange.headers if exchange else {}
        self.results = [self] if results is None else list(results)
        self.record_ids = list(record_ids)
        self.skipped = skipped
        self.duration = exchange.duration if exchange else 0.0
        self._exchange = exchange

    @classmethod
    def of(cls, results, skipped=0):
        """Sum up the results of several requests."""
        speaker = next((result for result in results if not result.success), results[-1] if results else cls())
        whole = cls(
            speaker._exchange,
            error=speaker.error,
            record_ids=[record_id for result in results for record_id in result.record_ids],
            results=results,
            skipped=skipped,
        )
        whole.duration = sum(result.duration for result in results)
        return whole

    def json(self):
        """Parse the answer's body.

        :raises ValueError: when it is no JSON
        """
        if not self._exchange:
            raise ValueError(self.error or "there is no answer")
        return self._exchange.json()

    def __getitem__(self, key):
        return vars(self)[key]

    def __iter__(self):
        return iter(vars(self))

    def __len__(self):
        return len(vars(self))

    def __bool__(self):
        return self.success

    def __repr__(self):
        return f"<Result {self.status_code} of {len(self.results)}{': ' + self.error if self.error else ''}>"
