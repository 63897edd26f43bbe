"""What the server counts, for Prometheus; in a registry of its own, so that two servers in one process don't mix."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Kind, Item, Result = TypeVar("Kind"), TypeVar("Item"), TypeVar("Result")
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests by status, their seconds; batches by size, their seconds; pictures waiting."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("apexgen_requests", "Answers given.", ["status"], registry=self.registry)
        self.request_seconds = Histogram(
            "apexgen_request_seconds", "From a request to its answer.", buckets=SECONDS, registry=self.registry
        )
        self.batch_size = Histogram("apexgen_batch_size", "Pictures a batch.", buckets=SIZES, registry=self.registry)
        self.batch_seconds = Histogram(
            "apexgen_batch_seconds", "Seconds a batch was drawn in.", buckets=SECONDS, registry=self.registry
        )
        self._waiting = Gauge("apexgen_waiting", "Pictures that wait to be drawn.", registry=self.registry)

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Where the number of waiting pictures is read, whenever it is asked for."""
        self._waiting.set_function(count)

    def counting(
        self, work: Callable[[Kind, Sequence[Item]], Sequence[Result]]
    ) -> Callable[[Kind, Sequence[Item]], Sequence[Result]]:
        """The same work, with the sizes and seconds of its batches counted."""

        def counted(kind: Kind, items: Sequence[Item]) -> Sequence[Result]:
            began = perf_counter()
            results = work(kind, items)
            self.batch_size.observe(len(items))
            self.batch_seconds.observe(perf_counter() - began)
            return results

        return counted

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
