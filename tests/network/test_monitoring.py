"""Alert rules and dashboards, etcd's and ours, evaluated over the page of metrics of a served store.

Times are those of the scrapes, which are made as fast as they can be. A rule is silent over a healthy store, and fires
once the number that it is about has changed: so it is wired to the metric, with its labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

import kvstore
from kvstore.backup import follow
from kvstore.core import COMMIT
from kvstore.errors import Code
from kvstore.observe.measuring import MeasuredEngine
from kvstore.replica import new_replica
from kvstore.testing import faults
from tests import PROJECT
from tests.etcd.etcd_recorder import HAS_ETCD, fresh_etcd
from tests.harness.promql import Series, evaluate, selectors
from tests.network.etcd_mixin import ALERTS, PANELS

HERE = PROJECT / "examples" / "serve" / "monitoring"
STEP_SECONDS = 60
SCRAPES = 4
TARGET = {"job": "etcd", "instance": "here"}
COUNTERS = {"rate", "increase"}

REPLICAS = {"KvstoreReplicaLags", "KvstoreReplicaFails"}
OF_REPLICAS = "kvstore_replica_"
OTHERS_ONLY = "etcd_network_peer_"
"""Of members to each other. An etcd that is alone shows none of these, either."""
ETCDS_GAUGES = {
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_debugging_mvcc_current_revision",
}
"""They only grow, and are gauges in etcd as well."""


BEGAN_SECONDS = 30 * 86_400.0
"""The time of day of the first scrape: some rules are about days."""


def own_rules() -> dict[str, str]:
    (group,) = yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def own_panels() -> dict[str, str]:
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    found = {
        f"{panel['title']}: {each['legendFormat']}": each["expr"]
        for panel in panels
        for each in panel["targets"]
    }
    replaced = {"$job": "etcd", "$instance": "here", "$__rate_interval": "2m"}
    for name, expression in found.items():
        for variable, value in replaced.items():
            expression = expression.replace(variable, value)
        found[name] = expression
    return found


def page_of(url: str) -> str:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def metrics_of(page: str) -> set[str]:
    return set(re.findall(r"(?m)^# TYPE (\S+)", page))


class Scraped:
    """What a Prometheus has of a store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.page = ""
        """The last one."""
        self._now = BEGAN_SECONDS
        self.series = Series()

    def scrape(self) -> None:
        self._now += STEP_SECONDS
        self.page = page_of(self._url)
        self.series.scrape(self._now, self.page, **TARGET)
        self.series.add(self._now, "up", 1.0, TARGET)

    def number(self, name: str) -> float:
        """The last one of a metric without labels of its own."""
        (samples,) = self.series.samples[name].values()
        return samples[-1][1]

    def found(self, name: str, **changes: float) -> Any:
        """What a rule or panel evaluates to now; ``changes``: had the last scrape had these values."""
        return evaluate(EVERYTHING[name], self.series.changed(changes), self._now)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("scraped")
    with (
        kvstore.open(folder / "s", metrics=True, quota_backend_bytes=1 << 30, low_disk_bytes=0) as store,
        follow(store, folder / "backup"),
        kvstore.serve(store, "http://127.0.0.1:0", metrics="extensive") as server,
    ):
        found = Scraped(server.endpoints[0])
        with kvstore.connect(server.endpoints[0]) as client, client.watch(b"watched"):
            for number in range(SCRAPES):
                client.put(b"k%d" % number, b"v")
                client.get(b"k")
                store.checkpoint()
                found.scrape()
        yield found


RULES = {**ALERTS, **own_rules()}
SHOWN = {**PANELS, **own_panels()}
EVERYTHING = {**RULES, **SHOWN}
DURATIONS = {name for name, expression in RULES.items() if "histogram_quantile" in expression}
CALLS = {name for name, expression in RULES.items() if "grpc_code=" in expression}
AMONG_MEMBERS = {name for name in DURATIONS if OTHERS_ONLY in RULES[name]}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_metric_that_is_asked_for_is_there_and_of_its_kind(scraped: Scraped, name: str) -> None:
    """With the labels that are selected; what is rated is a counter, what has quantiles a histogram."""
    series, found = scraped.series, selectors(EVERYTHING[name])
    assert found
    for selector, function in found:
        if selector.name.startswith((OTHERS_ONLY, OF_REPLICAS)):
            continue
        without_codes = [matcher for matcher in selector.matchers.matchers if matcher.name == "grpc_code"]
        assert series.select(selector) or without_codes, f"{selector.name} is not shown"
        kind = series.types.get(selector.name, "gauge")
        if selector.name.endswith("_bucket"):
            assert kind == "histogram"
        elif function in COUNTERS and selector.name not in ETCDS_GAUGES:
            assert kind == "counter", f"{selector.name} is a {kind}"


def test_metrics_of_the_page_are_shown(scraped: Scraped) -> None:
    """docs/monitoring.md names no other. (Those of replicas have a test of their own.)"""
    page = (PROJECT / "docs" / "monitoring.md").read_text()
    named = set(re.findall(r"`((?:etcd|kvstore)_[a-z_]+[a-z])`", page))
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in scraped.series.samples}
    assert {name for name in named - shown if not name.startswith(OF_REPLICAS)} == set()


NOT_HERE = re.compile(
    "go_|promhttp_|etcd_server_go_|etcd_grpc_proxy_"  # Go's, and a proxy's, which etcd's program is, too
    "|etcd_debugging_store_"  # of API v2
    "|etcd_debugging_disk_backend_commit_|etcd_mvcc_db_open_read_"  # bbolt's own steps
    "|etcd_debugging_mvcc_(db|index)_compaction_(pause|total)_duration_"  # one step there, many short ones here
    "|etcd_mvcc_hash_duration_"  # Hash, which nothing but tests asks for
    "|etcd_snap_|etcd_debugging_snap_save_marshalling_"  # snapshots that a leader sends
    "|etcd_server_snapshot_apply_|etcd_server_learner_promote_"  # members
    "|etcd_server_(apply|range)_duration_"  # of one write, which goes with others here; of reads: see --metrics
    "|etcd_server_feature_enabled$"  # of flags that are ignored
    "|process_virtual_memory_max_|process_network_"  # Prometheus' client for Python has them not
)
"""What an etcd alone shows, and we do not. docs/monitoring.md says so, too."""


@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
def test_an_etcd_shows_nothing_else(scraped: Scraped, tmp_path: Path) -> None:
    """Every metric of a real one is here, or of something that is not here."""
    with fresh_etcd(tmp_path) as url:
        theirs = metrics_of(page_of(url))
    ours = metrics_of(scraped.page)
    assert "etcd_mvcc_put_total" in theirs & ours
    assert {name for name in theirs - ours if not NOT_HERE.match(name)} == set()
    assert {name for name in ours if NOT_HERE.match(name)} == set()


def test_calls_of_every_outcome_are_counted_from_the_start(scraped: Scraped) -> None:
    """So that the first failure shows as a change."""
    codes = {
        dict(labels)["grpc_code"]
        for labels in scraped.series.samples["grpc_server_handled_total"]
        if dict(labels)["grpc_method"] == "Put"
    }
    assert {"OK", "Canceled", "Unavailable", "Unauthenticated"} < codes and len(codes) == len(Code)


def test_events_users_and_slow_writes_are_counted(tmp_path: Path) -> None:
    """Events by receiver, changes of users and roles, writes that took longer than is warned of."""
    with (
        kvstore.open(tmp_path / "s", metrics=True) as store,
        kvstore.serve(store, "http://127.0.0.1:0", warning_apply_seconds=0.5) as server,
        kvstore.connect(server.endpoints[0]) as client,
    ):
        found = Scraped(server.endpoints[0])
        with client.watch(b"a") as one, client.watch(b"a", start_revision=1) as other:
            client.put(b"a", b"1")
            client.put(b"a", b"2")
            for watch in (one, other):
                assert [next(watch).kv.value, next(watch).kv.value] == [b"1", b"2"]
        with faults.slow_sync(1.0):
            client.put(b"b", b"1")
        found.scrape()
        assert found.number("etcd_debugging_mvcc_events_total") == 4
        assert found.number("etcd_debugging_mvcc_pending_events_total") == 0
        assert found.number("etcd_debugging_mvcc_keys_total") == 2
        assert found.number("etcd_debugging_auth_revision") == 1
        assert found.number("etcd_server_slow_apply_total") >= 1


@pytest.mark.parametrize("name", SHOWN)
def test_every_panel_shows_something(scraped: Scraped, name: str) -> None:
    """A number, or several; but for the traffic of members, of which there is one, and replicas. No call has failed."""
    found = scraped.found(name)
    if OTHERS_ONLY in SHOWN[name] or OF_REPLICAS in SHOWN[name]:
        assert found == {}
    elif "grpc_code=" in SHOWN[name] or "grpc_code!~" in SHOWN[name]:
        assert not any(found.values())
    else:
        assert found and all(value == value for value in found.values()), found


@pytest.mark.parametrize("name", sorted(set(RULES) - DURATIONS))
def test_no_rule_fires_over_a_healthy_store(scraped: Scraped, name: str) -> None:
    """(How long things take here is this machine's own affair.)"""
    assert scraped.found(name) == {}


MANY = 1e12
FIRES: dict[str, dict[str, float]] = {
    "etcdMembersDown": {"up": 0},
    "etcdInsufficientMembers": {"up": 0},
    "etcdNoLeader": {"etcd_server_has_leader": 0},
    "etcdHighNumberOfLeaderChanges": {"etcd_server_leader_changes_seen_total": 9},
    "etcdHighNumberOfFailedProposals": {"etcd_server_proposals_failed_total": 1e5},
    "etcdDatabaseQuotaLowSpace": {"etcd_mvcc_db_total_size_in_bytes": 1.2e9},
    "etcdExcessiveDatabaseGrowth": {"etcd_mvcc_db_total_size_in_bytes": 9e8},
    "etcdDatabaseHighFragmentationRatio": {
        "etcd_mvcc_db_total_size_in_use_in_bytes": 2e8,
        "etcd_mvcc_db_total_size_in_bytes": 5e8,
    },
    "KvstoreDown": {"up": 0},
    "KvstoreWritesEnded": {"etcd_server_has_leader": 0},
    "KvstoreAlarm": {"etcd_debugging_server_alarms": 1},
    "KvstoreUnhealthy": {"kvstore_healthy": 0},
    "KvstoreQuotaNear": {"etcd_mvcc_db_total_size_in_use_in_bytes": 9e8},
    "KvstoreQuotaInADay": {"etcd_mvcc_db_total_size_in_use_in_bytes": 9e8},
    "KvstoreSpaceNotGivenBack": {"etcd_mvcc_db_total_size_in_bytes": 1e8},
    "KvstoreCheckpointsLag": {"kvstore_waiting_bytes": MANY},
    "KvstoreCompactionLags": {"kvstore_compaction_debt_revisions": MANY},
    "KvstoreReaderLeftOpen": {"kvstore_reader_commits_behind": MANY},
    "KvstoreManyWatchers": {"etcd_debugging_mvcc_watcher_total": MANY},
    "KvstoreSlowWatchers": {"etcd_debugging_mvcc_slow_watcher_total": MANY},
    "KvstoreLeasesPileUp": {"kvstore_leases": MANY},
    "KvstoreBackupLags": {"kvstore_backup_lag_seconds": MANY},
    "KvstoreBackupFails": {"kvstore_backup_failing": 1},
    "KvstoreBackupDamaged": {"kvstore_backup_damaged": 1},
    "KvstoreBackupNotVerified": {"kvstore_backup_last_verified_timestamp_seconds": 1},
}
"""Which numbers make a rule fire. Rules about durations and calls are provoked in tests of their own."""


@pytest.mark.parametrize("name", FIRES)
def test_a_rule_fires_when_its_number_changes(scraped: Scraped, name: str) -> None:
    """And names the instance, where it is about one."""
    found = scraped.found(name, **FIRES[name])
    assert len(found) == 1
    if name not in ("etcdMembersDown", "etcdInsufficientMembers", "etcdHighNumberOfLeaderChanges"):
        assert ("instance", "here") in next(iter(found))


@pytest.mark.filterwarnings("ignore::kvstore.NearlyFull")
def test_rules_about_durations_and_failures_fire_in_earnest(tmp_path: Path) -> None:
    """A sync takes a second, and so does its call; a checkpoint is said to have; on a full quota every put fails."""
    assert set(FIRES) | DURATIONS | CALLS | REPLICAS == set(RULES)
    with (
        kvstore.open(tmp_path / "s", metrics=True, background=False, quota_backend_bytes=1 << 20) as store,
        kvstore.serve(store, "http://127.0.0.1:0", metrics="extensive") as server,
        kvstore.connect(server.endpoints[0]) as client,
    ):
        found = Scraped(server.endpoints[0])
        client.put(b"k", b"v")
        with pytest.raises(kvstore.QuotaExceeded):
            client.put(b"k", bytes(1_200_000))
        found.scrape()
        with pytest.raises(kvstore.QuotaExceeded):
            client.put(b"k", bytes(1_200_000))
        with faults.slow_sync(1.1):
            client.delete(b"k")
        assert isinstance(store.engine, MeasuredEngine)
        store.engine.measured.durations[COMMIT].observe(3.0)
        found.scrape()
    for name in sorted(DURATIONS | CALLS):
        assert bool(found.found(name)) == (name not in AMONG_MEMBERS), name


def test_rules_about_replicas(tmp_path: Path) -> None:
    """Silent while it follows; its panel has a number. They fire when it lags, and when its last step failed."""
    with (
        kvstore.open(tmp_path / "source") as store,
        kvstore.serve(store, f"unix://{tmp_path}/s") as source,
        new_replica(
            source.endpoints[0],
            tmp_path / "replica",
            options={"metrics": True},
            serve=lambda store: kvstore.serve(store, "http://127.0.0.1:0"),
        ) as following,
    ):
        following.catch_up()
        assert following.server is not None
        found = Scraped(following.server.endpoints[0])
        found.scrape()
        for name, number in zip(
            sorted(REPLICAS), ("kvstore_replica_failing", "kvstore_replica_lag_seconds"), strict=True
        ):
            assert found.found(name) == {}
            assert len(found.found(name, **{number: MANY if "lag" in number else 1})) == 1
        assert "kvstore_replica_lag_seconds" in (PROJECT / "docs" / "monitoring.md").read_text()
        (panel,) = [name for name in SHOWN if OF_REPLICAS in SHOWN[name]]
        assert len(found.found(panel)) == 1


def test_the_page_says_what_each_alert_means() -> None:
    """docs/monitoring.md has each of our rules with its severity, and names no metric that is not shown."""
    page = (PROJECT / "docs" / "monitoring.md").read_text()
    (group,) = yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| Kvstore")]
    told = {name.strip(): row[2].strip() for row in rows for name in row[1].split(",")}
    assert told == {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}
