"""What a monitor gets to see of an endpoint: etcd's metrics of calls and of the server, beside those of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

from kvstore import metrics
from kvstore.errors import Code
from kvstore.network.call import Kind, Method
from kvstore.network.endpoint import Endpoint
from kvstore.network.traffic import DURATION_BOUNDS_SECONDS, Counts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CODE_NAMES = {code: code.name.title().replace("_", "") for code in Code} | {
    Code.OK: "OK",
    Code.CANCELLED: "Canceled",
}
"""As gRPC's libraries for Go spell them."""


class TrafficCollector:
    """A Prometheus collector of what an endpoint is, and of what it has been asked."""

    def __init__(self, endpoint: Endpoint, methods: Iterable[Method]) -> None:
        self._endpoint = endpoint
        self._methods = list(methods)

    def collect(self) -> Iterable[Metric]:
        yield from self._calls()
        if self._endpoint.settings.metrics == "extensive":
            yield self._durations()
        yield from self._clients()
        yield from self._numbers()
        yield from self._identity()

    def _calls(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily

        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=labels)
        received = CounterMetricFamily("grpc_server_msg_received", "Messages received.", labels=labels)
        sent = CounterMetricFamily("grpc_server_msg_sent", "Messages sent.", labels=labels)
        handled = CounterMetricFamily("grpc_server_handled", "Calls ended.", labels=[*labels, "grpc_code"])
        for method in self._methods:
            counts = [each.total for path, _version, each in self._counts() if path == method.path]
            values = [method.kind.value, method.service, method.name]
            started.add_metric(values, sum(each.started for each in counts))
            received.add_metric(values, sum(each.received for each in counts))
            sent.add_metric(values, sum(each.sent for each in counts))
            ended = Counter(dict.fromkeys(CODE_NAMES, 0))
            for each in counts:
                ended.update(each.handled)
            for code, count in ended.items():
                handled.add_metric([*values, CODE_NAMES[code]], count)
        yield from (started, received, sent, handled)

    def _durations(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        found = HistogramMetricFamily(
            "grpc_server_handling_seconds",
            "How long calls took.",
            labels=["grpc_type", "grpc_service", "grpc_method"],
        )
        for method in self._methods:
            counts = [each for path, _version, each in self._counts() if path == method.path]
            bounds = [*map(str, DURATION_BOUNDS_SECONDS), "+Inf"]
            totals = accumulate(map(sum, zip(*[each.durations for each in counts], strict=True)))
            buckets = list(zip(bounds, totals, strict=False)) or [(bound, 0) for bound in bounds]
            values = [method.kind.value, method.service, method.name]
            found.add_metric(values, buckets, sum(each.seconds for each in counts))
        return found

    def _counts(self) -> list[tuple[str, str, Counts]]:
        return [
            (path, version, counts)
            for (path, version), counts in self._endpoint.traffic.counts.copy().items()
        ]

    def _clients(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily

        unary = {method.path for method in self._methods if method.kind is Kind.UNARY}
        found: Counter[tuple[str, str]] = Counter()
        for path, version, counts in self._counts():
            found["unary" if path in unary else "stream", version] += counts.total.started
        labels = ["type", "client_api_version"]
        clients = CounterMetricFamily(
            "etcd_server_client_requests", "Calls by the version that a client gives.", labels=labels
        )
        for key, count in found.items():
            clients.add_metric(list(key), count)
        yield clients

    def _numbers(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        traffic, counts = self._endpoint.traffic, [each for *_key, each in self._counts()]
        received, sent = (
            sum(each.received_bytes for each in counts),
            sum(each.sent_bytes for each in counts),
        )
        totals = {
            "etcd_network_client_grpc_received_bytes": (
                "Bytes of messages received.",
                received,
            ),
            "etcd_network_client_grpc_sent_bytes": ("Bytes of messages sent.", sent),
            "etcd_debugging_mvcc_events": ("Events sent to who watches.", traffic.events),
            "etcd_server_leader_changes_seen": ("Leaders since the start.", 1),
            "etcd_server_slow_apply": (
                "Writes that took longer than --warning-apply-duration.",
                self._endpoint.slow_writes.count,
            ),
            "etcd_server_heartbeat_send_failures": ("There is nobody to send any to.", 0),
            "etcd_server_slow_read_indexes": ("Reads ask nobody else.", 0),
            "etcd_server_read_indexes_failed": ("Reads ask nobody else.", 0),
        }
        for name, (text, value) in totals.items():
            yield CounterMetricFamily(name, text, value=value)
        is_replica = self._endpoint.engine.status().replica is not None
        gauges = {
            "etcd_debugging_auth_revision": ("Of users and roles.", self._endpoint.users.rules.revision),
            "etcd_server_is_leader": ("1: it takes writes.", not is_replica),
            "etcd_server_is_learner": ("1: it is a replica.", is_replica),
            "etcd_server_health_success": ("Checks of /health that found nothing wrong.", traffic.healthy),
            "etcd_server_health_failures": ("Checks of /health that did.", traffic.unhealthy),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)

    def _identity(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        dialect, own = self._endpoint.dialect, f"{self._endpoint.engine.member_id:x}"
        for name, labels in (
            ("etcd_server_id", {"server_id": own}),
            ("etcd_server_version", {"server_version": dialect.version}),
            ("etcd_cluster_version", {"cluster_version": f"3.{dialect.minor}"}),
            ("etcd_network_known_peers", {"Local": own, "Remote": own}),  # every member knows itself
        ):
            family = GaugeMetricFamily(name, "1: what the labels say.", labels=list(labels))
            family.add_metric(list(labels.values()), 1)
            yield family


def exposition(endpoint: Endpoint, methods: Iterable[Method]) -> bytes:
    """Everything there is to say of an endpoint, its store and its process, in Prometheus' text format.

    ``MissingDependency`` without the package prometheus-client.
    """
    store = metrics.StoreCollector(endpoint.engine)
    return metrics.exposition(store, TrafficCollector(endpoint, methods), _ProcessCollector())


class _ProcessCollector:
    """CPU, memory and descriptors of this process; some under etcd's own names, too."""

    def collect(self) -> Iterable[Metric]:
        from prometheus_client import ProcessCollector
        from prometheus_client.core import GaugeMetricFamily

        for family in ProcessCollector(registry=None).collect():
            yield family
            if family.name in _OF_PROCESS:
                yield GaugeMetricFamily(
                    _OF_PROCESS[family.name], family.documentation, value=family.samples[0].value
                )


_OF_PROCESS = {"process_open_fds": "os_fd_used", "process_max_fds": "os_fd_limit"}
