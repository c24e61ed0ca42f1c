"""What etcd's alert rules and dashboard ask of ``/metrics``: the expressions, and nothing else.

From github.com/etcd-io/etcd, contrib/mixin at commit c34dc7ee0048 (alerts/alerts.libsonnet;
dashboards/targets.libsonnet and etcd-grafana7x.libsonnet, which ask the same and for proposals besides), with the
defaults of config.libsonnet.
"""

_S = 'job=~".*etcd.*"'
_C = f'{_S}, job="etcd"'
_BAD = (
    'grpc_code=~"Unknown|FailedPrecondition|ResourceExhausted|Internal|Unavailable|DataLoss|DeadlineExceeded"'
)
_RANGE = "2m"
"""What Grafana puts in for $__rate_interval."""

_FAILED_CALLS = (
    f"100 * sum(rate(grpc_server_handled_total{{{_S}, {_BAD}}}[5m])) without (grpc_type, grpc_code) "
    f"/ sum(rate(grpc_server_handled_total{{{_S}}}[5m])) without (grpc_type, grpc_code)"
)
_FSYNC = f"histogram_quantile(0.99, rate(etcd_disk_wal_fsync_duration_seconds_bucket{{{_S}}}[5m]))"

ALERTS = {
    "etcdMembersDown": (
        f"max without (endpoint) (sum without (instance) (up{{{_S}}} == bool 0) or count without (To) ("
        f"sum without (instance) (rate(etcd_network_peer_sent_failures_total{{{_S}}}[120s])) > 0.01)) > 0"
    ),
    "etcdInsufficientMembers": (
        f"sum(up{{{_S}}} == bool 1) without (instance) < ((count(up{{{_S}}}) without (instance) + 1) / 2)"
    ),
    "etcdNoLeader": f"etcd_server_has_leader{{{_S}}} == 0",
    "etcdHighNumberOfLeaderChanges": (
        f"increase((max without (instance) (etcd_server_leader_changes_seen_total{{{_S}}}) "
        f"or 0*absent(etcd_server_leader_changes_seen_total{{{_S}}}))[15m:1m]) >= 4"
    ),
    "etcdHighNumberOfFailedGRPCRequests (warning)": f"{_FAILED_CALLS} > 1",
    "etcdHighNumberOfFailedGRPCRequests (critical)": f"{_FAILED_CALLS} > 5",
    "etcdGRPCRequestsSlow": (
        "histogram_quantile(0.99, sum(rate(grpc_server_handling_seconds_bucket"
        f'{{{_S}, grpc_method!="Defragment", grpc_type="unary"}}[5m])) without(grpc_type)) > 0.15'
    ),
    "etcdMemberCommunicationSlow": (
        f"histogram_quantile(0.99, rate(etcd_network_peer_round_trip_time_seconds_bucket{{{_S}}}[5m])) > 0.15"
    ),
    "etcdHighNumberOfFailedProposals": f"rate(etcd_server_proposals_failed_total{{{_S}}}[15m]) > 5",
    "etcdHighFsyncDurations (warning)": f"{_FSYNC} > 0.5",
    "etcdHighFsyncDurations (critical)": f"{_FSYNC} > 1",
    "etcdHighCommitDurations": (
        f"histogram_quantile(0.99, rate(etcd_disk_backend_commit_duration_seconds_bucket{{{_S}}}[5m])) > 0.25"
    ),
    "etcdDatabaseQuotaLowSpace": (
        f"(last_over_time(etcd_mvcc_db_total_size_in_bytes{{{_S}}}[5m]) "
        f"/ last_over_time(etcd_server_quota_backend_bytes{{{_S}}}[5m]))*100 > 95"
    ),
    "etcdExcessiveDatabaseGrowth": (
        f"predict_linear(etcd_mvcc_db_total_size_in_bytes{{{_S}}}[4h], 4*60*60) "
        f"> etcd_server_quota_backend_bytes{{{_S}}}"
    ),
    "etcdDatabaseHighFragmentationRatio": (
        f"(last_over_time(etcd_mvcc_db_total_size_in_use_in_bytes{{{_S}}}[5m]) "
        f"/ last_over_time(etcd_mvcc_db_total_size_in_bytes{{{_S}}}[5m])) < 0.5 "
        f"and etcd_mvcc_db_total_size_in_use_in_bytes{{{_S}}} > 104857600"
    ),
}


def _streams(service: str) -> str:
    labels = f'grpc_service="etcdserverpb.{service}",grpc_type="bidi_stream"'
    return f'sum(grpc_server_started_total{{{_C},{labels}}}) - sum(grpc_server_handled_total{{job="etcd",{labels}}})'


def _slow(name: str) -> str:
    return f"histogram_quantile(0.99, sum(rate({name}_bucket{{{_C}}}[{_RANGE}])) by (instance, le))"


PANELS = {
    "Up": f"sum(etcd_server_has_leader{{{_C}}})",
    "RPC rate": f'sum(rate(grpc_server_started_total{{{_C},grpc_type="unary"}}[{_RANGE}]))',
    "RPC failed rate": f'sum(rate(grpc_server_handled_total{{{_C},grpc_type="unary",{_BAD}}}[{_RANGE}]))',
    "Watch streams": _streams("Watch"),
    "Lease streams": _streams("Lease"),
    "DB size": f"etcd_mvcc_db_total_size_in_bytes{{{_C}}}",
    "WAL fsync": _slow("etcd_disk_wal_fsync_duration_seconds"),
    "DB fsync": _slow("etcd_disk_backend_commit_duration_seconds"),
    "Memory": f"process_resident_memory_bytes{{{_C}}}",
    "Client traffic in": f"rate(etcd_network_client_grpc_received_bytes_total{{{_C}}}[{_RANGE}])",
    "Client traffic out": f"rate(etcd_network_client_grpc_sent_bytes_total{{{_C}}}[{_RANGE}])",
    "Peer traffic in": f"sum(rate(etcd_network_peer_received_bytes_total{{{_C}}}[{_RANGE}])) by (instance)",
    "Peer traffic out": f"sum(rate(etcd_network_peer_sent_bytes_total{{{_C}}}[{_RANGE}])) by (instance)",
    "Proposals failed": f"sum(rate(etcd_server_proposals_failed_total{{{_C}}}[{_RANGE}]))",
    "Proposals pending": f"sum(etcd_server_proposals_pending{{{_C}}})",
    "Proposals committed": f"sum(rate(etcd_server_proposals_committed_total{{{_C}}}[{_RANGE}]))",
    "Proposals applied": f"sum(rate(etcd_server_proposals_applied_total{{{_C}}}[{_RANGE}]))",
    "Leader elections": f"changes(etcd_server_leader_changes_seen_total{{{_C}}}[1d])",
    "Peer round trips": (
        "histogram_quantile(0.99, sum by (instance, le) "
        f"(rate(etcd_network_peer_round_trip_time_seconds_bucket{{{_C}}}[{_RANGE}])))"
    ),
}
