"""The page's own questions, and who may ask them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore.auth.permissions import merged
from kvstore.core import ReplicaStatus
from kvstore.network import ui_answers
from kvstore.network.call import Peer
from kvstore.network.config import load
from kvstore.options import BadOption
from kvstore.ui.shown import key_id, key_of
from tests.network.web_client import Answer, WebClient, web_client

ASKING = {"X_Kvstore_UI": "1"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WebClient]:
    with web_client(tmp_path, has_ui=True, ui_writes=True) as opened:
        yield opened


def read(client: WebClient, name: str, token: str = "", **query: str) -> Answer:
    headers = ASKING | ({"Authorization": token} if token else {})
    return client.ask("GET", f"/ui/api/{name}?{urlencode(query)}", b"", **headers)


def write(client: WebClient, name: str, message: Any, **headers: str) -> Answer:
    return client.ask("POST", f"/ui/api/{name}", json.dumps(message).encode(), **{**ASKING, **headers})


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [node["name"] for node in answer.json["nodes"]]


# --- who may ask ------------------------------------------------------------------------------------


def test_there_is_no_page_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Neither the document nor what it asks for."""
    with web_client(tmp_path) as client:
        assert client.ask("GET", "/ui/").status == 404
        assert read(client, "about").status == 404


def test_the_document_lets_nothing_else_run_or_hold_it(client: WebClient) -> None:
    """A strict policy, no frames, no sniffing, no other origin; and the plain path leads there."""
    answer = client.ask("GET", "/ui/", Origin="http://elsewhere")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert answer.status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers
    assert b'src="' not in answer.body
    assert client.ask("GET", "/ui").headers["location"] == "/ui/"
    assert client.ask("POST", "/ui/").status == 405
    assert client.ask("GET", "/ui/elsewhere").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**ASKING, "Origin": "http://elsewhere"},
        {**ASKING, "Origin": "https://localhost"},
        {**ASKING, "Origin": "null"},
        {**ASKING, "Sec_Fetch_Site": "cross-site"},
        {**ASKING, "Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_can_neither_read_nor_write(client: WebClient, headers: dict[str, str]) -> None:
    """Without the page's header, or from another origin, everything is refused, and nothing allows to ask first."""
    asked = json.dumps({"key": "k", "value": "v", "revision": 0}).encode()
    assert client.ask("GET", "/ui/api/about", b"", **headers).status == 403
    assert client.ask("POST", "/ui/api/put", asked, **headers).status == 403
    assert client.store.get(b"k") is None
    first = client.ask("OPTIONS", "/ui/api/put", b"", **headers)
    assert not any(name.lower().startswith("access-control") for name in first.headers)


def test_the_pages_own_origin_is_allowed(client: WebClient) -> None:
    """What a browser says of a request of the page itself."""
    headers = {**ASKING, "Origin": "http://localhost", "Sec_Fetch_Site": "same-origin"}
    assert client.ask("GET", "/ui/api/about", b"", **headers).status == 200


def test_monitors_have_no_page(tmp_path: Path) -> None:
    """Where metrics alone are served."""
    with web_client(tmp_path, has_ui=True) as client:
        monitor = WebClient(client.endpoint, Peer(), is_for_monitors=True)
        assert monitor.ask("GET", "/ui/").status == 404


def test_flags_that_do_not_go_together_are_refused() -> None:
    """The page needs the gateway, and its writes the page."""
    assert load(["--ui"], {}).settings.has_ui
    for flags in (["--ui", "--enable-grpc-gateway=false"], ["--ui-writes"]):
        with pytest.raises(BadOption, match="--ui"):
            load(flags, {})


# --- what it is told --------------------------------------------------------------------------------


def test_a_level_of_the_tree_a_page_at_a_time(client: WebClient) -> None:
    """Branches with how many keys they have, keys, and a place to go on; every one once, in order."""
    client.store.put_many(
        [(b"/many/%03d/%d" % (number, inner), b"") for number in range(450) for inner in (1, 2)]
    )
    client.store.put_many([(b"/many", b""), (b"plain", b""), (b"\xff\xff", b"")])
    assert names(read(client, "children")) == ["/", "plain", "\\xff\\xff"]
    found, after = [], ""
    while True:
        answer = read(client, "children", prefix="/many/", after=after)
        found += names(answer)
        after = answer.json.get("after", "")
        if not after:
            break
    assert found == [f"{number:03d}/" for number in range(450)]
    first = read(client, "children", prefix="/").json["nodes"]
    assert [(node["name"], node.get("numbers")) for node in first] == [("many", None), ("many/", "900 keys")]
    uncounted = read(client, "children", prefix="/", counts="no").json["nodes"]
    assert [(node["name"], node.get("numbers")) for node in uncounted] == [("many", None), ("many/", None)]


LETTERS = st.binary(min_size=1, max_size=5).map(lambda key: bytes(b"/ab\xff"[byte % 4] for byte in key))
ENDS = LETTERS | st.none()


LIVES = st.sampled_from(["live", "overwritten", "deleted", "forgotten"])
"""What became of a key. Of one that is forgotten, nothing is kept since a compaction."""


def live_through(store: kvstore.Store, lives: dict[bytes, str], *, is_checkpointed: bool) -> None:
    for key, life in lives.items():
        store.put(key, b"")
        if life == "forgotten":
            store.delete(key)
    if lives:
        store.compact(store.revision)
    for key, life in lives.items():
        if life == "overwritten":
            store.put(key, b"again")
        elif life == "deleted":
            store.delete(key)
    if is_checkpointed:
        store.engine.checkpoint()


@given(
    st.dictionaries(LETTERS, LIVES, max_size=30),
    LETTERS | st.just(b""),
    st.lists(st.tuples(LETTERS, ENDS), max_size=3),
    st.booleans(),
)
def test_the_tree_has_every_allowed_key_once(
    lives: dict[bytes, str], prefix: bytes, spans: list[tuple[bytes, bytes | None]], is_checkpointed: bool
) -> None:
    """The level below any prefix, for who may read any spans: what a walk through all their keys comes to, and which
    keys are deleted, and which branches have no others."""
    allowed = merged((start, end) for start, end in spans if end is None or start < end)
    children: dict[bytes, bool] = {}
    for key, life in sorted(lives.items()):
        is_allowed = any(low <= key and (high is None or key < high) for low, high in allowed)
        if key.startswith(prefix) and is_allowed and life != "forgotten":
            cut = key.find(b"/", len(prefix)) + 1
            name = key[:cut] if cut else key
            children[name] = children.get(name, True) and life == "deleted"
    expected = list(children.items())
    with pytest.MonkeyPatch.context() as patch, kvstore.open_memory() as store:
        patch.setattr(ui_answers, "BATCH_KEYS", 2)
        live_through(store, lives, is_checkpointed=is_checkpointed)
        found = ui_answers._children_below(store.engine, prefix, prefix, allowed)
        assert [(child.name, child.is_gone) for child in found] == expected
        for start in list(children)[1:2]:  # a page that goes on there
            found = ui_answers._children_below(store.engine, prefix, start, allowed)
            assert [(child.name, child.is_gone) for child in found] == expected[1:]
        searched = ui_answers._found(store.engine, [], b"", [(b"", None)])["nodes"]
        assert [(key_of(node["key"]), "gone" in node) for node in searched] == [
            (key, life == "deleted") for key, life in sorted(lives.items()) if life != "forgotten"
        ]


def test_a_search_goes_through_all_keys(client: WebClient) -> None:
    """Words in any case, also beyond what one answer holds."""
    client.store.put_many([(b"key-%04d" % number, b"x" * (number % 7) * 9999) for number in range(1200)])
    found, after = [], ""
    while True:
        answer = read(client, "find", words="KEY 9", after=after)
        found += names(answer)
        after = answer.json.get("after", "")
        if not after:
            break
    assert found == [f"key-{number:04d}" for number in range(1200) if "9" in f"{number:04d}"]


def test_deleted_keys_are_found_while_something_of_them_is_kept(client: WebClient) -> None:
    """In the tree and by search, however many there are; not after a compaction; and only by who may read them."""
    client.store.put_many([(b"/gone/%04d" % number, b"") for number in range(900)])
    client.store.put(b"/here", b"")
    client.store.delete(prefix=b"/gone/")
    for _ in range(2):  # from memory, and from the backend
        (branch, key) = read(client, "children", prefix="/").json["nodes"]
        assert (branch["name"], branch["numbers"], branch["gone"]) == ("gone/", "deleted", True)
        assert key == {"name": "here", "title": "/here", "key": "/here"}
        answer = read(client, "find", words="gone 77").json
        assert [node["name"] for node in answer["nodes"]] == [
            f"/gone/{number:04d}" for number in range(900) if "77" in f"{number:04d}"
        ]
        assert answer["looked"] == 901 and all(node["gone"] for node in answer["nodes"])
        client.store.engine.checkpoint()
    client.store.compact(client.store.revision)
    assert names(read(client, "children", prefix="/")) == ["here"]
    assert read(client, "find", words="gone").json["nodes"] == []


def test_a_branch_says_how_many_of_its_keys_are_deleted(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside those that are there, however many there are; of what the time does not last for, nothing is claimed."""
    monkeypatch.setattr(ui_answers, "BUDGET_SECONDS", 600)
    client.store.put_many([(b"/some/%04d" % number, b"") for number in range(1300)])
    client.store.put(b"/some/0000", b"again")
    client.store.delete(b"/some/0100", b"/some/1200")
    for _ in range(2):  # from memory, and from the backend
        (branch,) = read(client, "children", prefix="/").json["nodes"]
        assert branch["numbers"] == "200 keys · 1,100 deleted" and "gone" not in branch
        client.store.engine.checkpoint()
    monkeypatch.setattr(ui_answers, "BUDGET_SECONDS", 0)
    (branch,) = read(client, "children", prefix="/").json["nodes"]
    assert "numbers" not in branch


def test_versions_values_and_differences(client: WebClient) -> None:
    """The newest versions first, older ones on demand, deletes among them; decoded as inspect does."""
    key = b"\xff \0&=#"
    assert key_of(key_id(key)) == key
    for number in range(100):
        client.store.put(key, b'{"n":%d}' % number)
    client.store.delete(key)
    client.store.put(key, b"x" * 50_000)
    answer = read(client, "versions", key=key_id(key)).json
    assert len(answer["versions"]) + answer["more"] == 102
    newest, deleted = answer["versions"][-1], answer["versions"][-2]
    assert (newest["size"], len(newest["text"]), deleted["version"]) == (50_000, 20_000, 0)
    assert (
        len(read(client, "value", key=key_id(key), revision=str(newest["revision"])).json["text"]) == 50_000
    )
    older = read(client, "versions", key=key_id(key), before=str(answer["versions"][0]["revision"])).json
    assert older["versions"][-1]["revision"] == answer["versions"][0]["revision"] - 1
    assert (older["versions"][0]["form"], older["versions"][0]["title"]) == ("json", "json")
    assert read(client, "versions", key="nothing").json is None
    rows = read(client, "differences", older="2", newer="103").json["rows"]
    assert [(row["key"], row["kind"], row["sizes"]) for row in rows] == [
        (key_id(key), "changed", [7, 50_000])
    ]


def test_large_versions_are_decoded_when_they_are_looked_at(client: WebClient) -> None:
    """The list has the newest one's beginning; of the others that they differ."""
    for mark in (b"a", b"b", b"b", b"c"):
        revision = client.store.put(b"large", mark * (1 << 20)).revision
    listed = read(client, "versions", key="large").json["versions"]
    assert [len(version["text"]) for version in listed] == [0, 0, 20_000, 20_000]
    assert [version["size"] for version in listed] == [1 << 20] * 4
    assert listed[0]["digest"] != listed[1]["digest"] == listed[2]["digest"]
    assert all(version["cut"] for version in listed)
    assert read(client, "value", key="large", revision=str(revision - 3)).json["text"][:2] == "aa"


def test_when_a_revision_was_written(client: WebClient) -> None:
    """The time in the log."""
    revision = client.store.put(b"k", b"v").revision
    told = read(client, "when", revision=str(revision)).json["ms"]
    assert told / 1000 == pytest.approx(client.store.time_of(revision))
    assert read(client, "when", revision="99").status == 400


@pytest.mark.parametrize(
    ("name", "query", "status"),
    [
        ("versions", {}, 400),
        ("value", {"key": "k", "revision": "x"}, 400),
        ("value", {"key": "k", "revision": "99999"}, 400),
        ("value", {"key": "k"}, 404),
        ("differences", {"older": "1", "newer": "-1"}, 400),
        ("nothing", {}, 404),
    ],
)
def test_questions_that_make_no_sense(
    client: WebClient, name: str, query: dict[str, str], status: int
) -> None:
    """Are told so, as JSON."""
    answer = read(client, name, **query)
    assert (answer.status, bool(answer.json["message"])) == (status, True)


# --- writes -----------------------------------------------------------------------------------------


def test_the_page_writes_only_what_it_has_seen(client: WebClient) -> None:
    """A put or delete of a version that is not the newest any more does nothing, and says so."""
    first = write(client, "put", {"key": "k%00", "value": "one", "revision": 0}).json
    assert first["written"]
    assert not write(client, "put", {"key": "k%00", "value": "two", "revision": 0}).json["written"]
    kept = client.store.get(b"k\0")
    assert kept is not None and kept.value == b"one"
    assert write(client, "delete", {"key": "k%00", "revision": first["revision"]}).json["written"]
    assert client.store.get(b"k\0") is None


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"key": "k"},
        {"key": "", "value": "", "revision": 0},
        {"key": "k", "value": 1, "revision": 0},
    ]
    + [{"key": "k", "value": "", "revision": revision} for revision in (None, True, -1, 1 << 63, "1")],
)
def test_writes_that_make_no_sense_are_refused(client: WebClient, message: Any) -> None:
    """And change nothing."""
    assert write(client, "put", message).status == 400
    assert client.store.revision == 1


def test_what_is_no_json_or_too_long_is_refused(client: WebClient) -> None:
    """The answer says so, and the connection goes on."""
    assert client.ask("POST", "/ui/api/put", b"{", **ASKING).status == 400
    long = json.dumps({"key": "k", "value": "x" * (8 << 20), "revision": 0}).encode()
    assert client.ask("POST", "/ui/api/put", long, **ASKING).status in (400, 429)
    assert client.store.revision == 1


def test_a_page_that_may_not_write_does_not(tmp_path: Path) -> None:
    """Unless it was asked for."""
    with web_client(tmp_path, has_ui=True) as client:
        answer = write(client, "put", {"key": "k", "value": "v", "revision": 0})
        assert (answer.status, "--ui-writes" in answer.json["message"]) == (403, True)
        assert client.store.get(b"k") is None


# --- users ------------------------------------------------------------------------------------------


@pytest.fixture
def token(client: WebClient) -> str:
    """Of a user who may read below /a/ and write one key there; root has all the rest."""
    client.store.put_many([(b"/a/1", b"one"), (b"/a/2", b"two"), (b"/b/1", b"secret"), (b"/c", b"secret")])
    for path, message in [
        ("user/add", {"name": "root", "password": "r"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("role/add", {"name": "some"}),
        ("role/grant", {"name": "some", "perm": {"permType": "READ", "key": "L2Ev", "range_end": "L2Ew"}}),
        ("role/grant", {"name": "some", "perm": {"permType": "WRITE", "key": "L2EvMQ=="}}),
        ("user/add", {"name": "alice", "password": "a"}),
        ("user/grant", {"user": "alice", "role": "some"}),
        ("enable", {}),
    ]:
        answer = client.call(f"/v3/auth/{path}", message)
        assert answer.status == 200, answer.body
    found: str = client.call("/v3/auth/authenticate", {"name": "alice", "password": "a"}).json["token"]
    return found


def test_users_see_what_they_may_read(client: WebClient, token: str) -> None:
    """Tree, search and differences have nothing of the other keys; one of them by name is refused."""
    assert names(read(client, "children", token)) == ["/"]
    assert names(read(client, "children", token, prefix="/")) == ["a/"]
    assert names(read(client, "children", token, prefix="/b/")) == []
    assert names(read(client, "find", token, words="1")) == ["/a/1"]
    assert names(read(client, "find", token, words="", after="/b")) == []
    rows = read(client, "differences", token, older="1", newer="2").json["rows"]
    assert [row["key"] for row in rows] == ["/a/1", "/a/2"]
    assert read(client, "versions", token, key="/a/1").json["versions"][0]["text"] == "one"
    for name in ("versions", "value"):
        answer = read(client, name, token, key="/b/1", revision="2")
        assert (answer.status, b"secret" in answer.body) == (403, False)


def test_nobody_sees_nothing(client: WebClient, token: str) -> None:
    """Without a token, or with one that is none."""
    for name in ("about", "children", "find", "differences", "when"):
        assert read(client, name).status == 400, name
        assert read(client, name, "none").status == 401, name
    assert read(client, "versions", key="/a/1").status == 400


def test_users_write_what_they_may(client: WebClient, token: str) -> None:
    """A write is checked where it is planned, as any other."""
    seen = client.store.get(b"/a/1")
    assert seen is not None
    message = {"key": "/a/1", "value": "new", "revision": seen.mod_revision}
    assert write(client, "put", message).status == 400
    assert write(client, "put", message, Authorization=token).json["written"]
    answer = write(client, "put", {"key": "/a/2", "value": "new", "revision": 0}, Authorization=token)
    assert answer.status == 403
    assert write(client, "delete", {"key": "/b/1", "revision": 0}, Authorization=token).status == 403
    kept = client.store.get(b"/b/1")
    assert kept is not None and kept.value == b"secret"


def test_each_number_says_what_it_means(client: WebClient) -> None:
    """What stands above all; of a replica also how far behind it is."""
    facts = read(client, "about").json["facts"]
    assert {name for name, _, _ in facts} >= {"revision", "size", "leases"}
    assert all(why for _, _, why in facts)
    core: Any = client.store.engine
    core.core.follows.append(lambda: ReplicaStatus("source", 1, 1, 1, 75.2, (), ""))
    facts = read(client, "about").json["facts"]
    assert [number for name, number, why in facts if name == "behind its source" and why] == ["75 s"]
