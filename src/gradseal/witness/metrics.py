"""What a witness counts, for Prometheus. Origins are no labels: there may be very many of them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one witness."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.answers = Counter(
            "gradseal_witness_answers",
            "Answers to add-checkpoint, by HTTP status.",
            ["status"],
            registry=self._registry,
        )
        self.forks = Counter(
            "gradseal_witness_forks",
            "Signed checkpoints refused because the witness cosigned another root of their size.",
            registry=self._registry,
        )
        self.seconds = Histogram(
            "gradseal_witness_answer_seconds",
            "From a whole request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch = Histogram(
            "gradseal_witness_batch_submissions",
            "Submissions committed together.",
            buckets=_SIZES,
            registry=self._registry,
        )
        self.failures = Counter(
            "gradseal_witness_database_failures",
            "Batches that could not be committed, and so were not answered with cosignatures.",
            registry=self._registry,
        )
        self.changes = Gauge(
            "gradseal_witness_changes",
            "The database's counter, which never goes back.",
            registry=self._registry,
        )
        self.waiting = Gauge(
            "gradseal_witness_waiting",
            "Submissions that wait to be committed.",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Everything in the text format of Prometheus."""
        return generate_latest(self._registry)
