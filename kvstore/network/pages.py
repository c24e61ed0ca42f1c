"""Pages of HTTP: health, version, metrics.

    /health               as etcd has always had it: JSON, for load balancers
    /livez, /readyz       a list of checks, each also on a page of its own; ?verbose shows them, ?exclude= leaves out.
                          /readyz/replica: whether a replica follows its source
    /version, /metrics

What looks at the store is made in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from kvstore.errors import KVStoreError, MissingDependency
from kvstore.network.dialect import V3_5, V3_6
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import METHOD_NOT_ALLOWED, Exchange, Page, Reply, Request, text
from kvstore.network.monitor import exposition
from kvstore.network.services import TABLE

Make = Callable[[Endpoint, Request], Page]
NOT_FOUND = "404 page not found\n"


def open_page(
    endpoint: Endpoint, request: Request, path: str, reply: Reply, *, is_for_monitors: bool = False
) -> Exchange:
    """Answer with the page of that path."""
    page = _PAGES.get(path)
    if page is None or (is_for_monitors and page is version):
        reply.answer(*text(404, NOT_FOUND))
    elif request.method != "GET" and not (page is metrics and request.method == "HEAD"):
        reply.answer(*text(405, METHOD_NOT_ALLOWED, ("Allow", "GET")))
    else:
        _Making(endpoint, partial(page, endpoint, request), reply)
    return Exchange()


class _Making:
    """A page on its way out of a thread."""

    def __init__(self, endpoint: Endpoint, make: Callable[[], Page], reply: Reply) -> None:
        self._make = make
        self._reply = reply
        self._page: Page | None = None
        endpoint.read(self._work, self._finish)

    def _work(self) -> None:
        self._page = self._make()

    def _finish(self, error: BaseException | None) -> None:
        self._reply.answer(*(self._page or text(500, f"{error}\n")))


# --- health ----------------------------------------------------------------------------------------


def health(endpoint: Endpoint, request: Request) -> Page:
    reason = _illness(endpoint, request.query)
    report = {"health": "false" if reason else "true"}
    if endpoint.dialect >= V3_5:
        report["reason"] = reason
    body = json.dumps(report, separators=(",", ":"))
    endpoint.loop.call_soon_threadsafe(endpoint.traffic.count_health, not reason)
    if reason:
        return text(503, body + "\n")
    return Page(200, [("Content-Type", "text/plain; charset=utf-8")], body.encode())


def _illness(endpoint: Endpoint, query: dict[str, list[str]]) -> str:
    """What keeps the store from serving, empty if nothing does."""
    try:
        for alarm in endpoint.engine.alarms():
            if alarm.alarm not in query.get("exclude", ()):
                return f"ALARM {alarm.alarm}"
        return "" if query.get("serializable") == ["true"] else _failure(endpoint)
    except KVStoreError as error:
        return f"RANGE ERROR:{error}"


def _failure(endpoint: Endpoint) -> str:
    """A store that refuses writes for good is to etcd one without a leader."""
    return "RAFT NO LEADER" if endpoint.engine.status().failure else ""


def _check_reads(endpoint: Endpoint) -> None:
    endpoint.engine.check_readable()


def _check_writes(endpoint: Endpoint) -> None:
    _check_reads(endpoint)
    if failure := _failure(endpoint):
        raise KVStoreError(failure)


def _check_data(endpoint: Endpoint) -> None:
    if any(alarm.alarm == "CORRUPT" for alarm in endpoint.engine.alarms()):
        raise KVStoreError("alarm activated: CORRUPT")


def _check_replica(endpoint: Endpoint) -> None:
    """Whether a replica follows its source."""
    said = endpoint.engine.status().replica
    if said is not None and said.error:
        raise KVStoreError(said.error)


def _check_membership(_endpoint: Endpoint) -> None:
    """There is no member but this one, which votes."""


Check = Callable[[Endpoint], None]
LIVE: dict[str, Check] = {"serializable_read": _check_reads}
READY: dict[str, Check] = {
    "data_corruption": _check_data,
    "serializable_read": _check_reads,
    "linearizable_read": _check_writes,
    "non_learner": _check_membership,
}
APART: dict[str, Check] = {"replica": _check_replica}
"""Not part of ``/readyz``: a replica whose source is away is the place that still answers."""


def checked(checks: dict[str, Check], endpoint: Endpoint, request: Request) -> Page:
    """The page of some checks. A failure is always told, success only when asked for."""
    query, report, is_well = request.query, "", True
    for name, check in checks.items():
        if name in query.get("exclude", ()):
            continue
        try:
            check(endpoint)
            report += f"[+]{name} ok\n"
        except KVStoreError as error:
            report += f"[-]{name} failed: {error}\n"
            is_well = False
    if not is_well:
        return text(503, report + "\n")
    return text(200, (report if "verbose" in query else "") + "ok\n")


# --- what it is ------------------------------------------------------------------------------------


def version(endpoint: Endpoint, _request: Request) -> Page:
    dialect = endpoint.dialect
    found = {"etcdserver": dialect.version, "etcdcluster": dialect.cluster_version}
    if dialect >= V3_6:
        found["storage"] = dialect.cluster_version
    return Page(
        200, [("Content-Type", "application/json")], json.dumps(found, separators=(",", ":")).encode()
    )


def metrics(endpoint: Endpoint, _request: Request) -> Page:
    try:
        body = exposition(endpoint, TABLE.values())
    except MissingDependency as error:
        return text(501, f"{error}\n")
    escaping = "; escaping=underscores" if endpoint.dialect >= V3_6 else ""
    return Page(200, [("Content-Type", f"text/plain; version=0.0.4; charset=utf-8{escaping}")], body)


_PAGES: dict[str, Make] = {
    "/health": health,
    "/version": version,
    "/metrics": metrics,
    **{
        path: partial(checked, checks)
        for kind, all_checks in (("/livez", LIVE), ("/readyz", READY))
        for path, checks in [
            (kind, all_checks),
            *[(f"{kind}/{name}", {name: check}) for name, check in all_checks.items()],
        ]
    },
    **{f"/readyz/{name}": partial(checked, {name: check}) for name, check in APART.items()},
}
