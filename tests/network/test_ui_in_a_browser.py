"""The page of a served store, in a real headless browser: clicked through while the store changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import kvstore
from kvstore.ui.shown import key_id
from tests.harness.browser import Browser, Page, needs_browser
from tests.harness.hostile_store import HOSTILE, deployment, fill

pytestmark = needs_browser
DESKTOP, PHONE = 1200, 360


@pytest.fixture
def store() -> Iterator[kvstore.Store]:
    with kvstore.open_memory(metrics=True) as store:
        yield store


@pytest.fixture
def address(store: kvstore.Store) -> Iterator[str]:
    with kvstore.serve(store, "http://127.0.0.1:0", has_ui=True, ui_writes=True, bcrypt_cost=4) as server:
        yield f"{server.endpoints[0]}/ui/"


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the page, which then may not have failed anywhere."""
    opened = []

    def visit(place: str = "", width: int = DESKTOP) -> Page:
        page = browser.page(width)
        opened.append(page)
        page.open(address + place)
        return page

    yield visit
    for page in opened:
        assert page.errors == []
        assert page.evaluate("document.body.dataset.hacked") is None
        page.send("Page.navigate", url="about:blank")


def show(page: Page, key: str) -> None:
    page.click("#tree .name", key)
    page.wait(f"document.getElementById('key-name')?.textContent === {json.dumps(key)}")


def rows(page: Page, table: str) -> list[str]:
    return page.texts(f"#{table} tbody tr")


def test_a_hostile_store_is_looked_through(store: kvstore.Store, visit: Open) -> None:
    """Tree, search, values, versions and what changed, as in a saved page, and nothing of the store runs."""
    fill(store)
    page = visit()
    assert HOSTILE[1].decode() in page.texts("#tree .name")
    page.click("#tree .name", "/")
    page.click("#tree .name", "registry/")
    page.click("#tree .name", "deployments/")
    page.wait("document.querySelectorAll('#tree [aria-expanded=true]').length === 3")
    page.press("/")
    page.type("WEB depl")
    page.wait("document.getElementById('found').textContent.startsWith('1 of ')")
    page.press("Enter")
    page.wait("document.getElementById('key-name')?.textContent === '/registry/deployments/shop/web'")
    page.click("#tab-changes")
    page.wait("document.getElementById('diff')")
    assert [text[2:].strip() for text in page.texts("#diff td.ins")][1:] == ["replicas: 5", "image: web:2"]
    for key in (HOSTILE[0], HOSTILE[5], b"hot", b"big/text"):
        page.evaluate(f"go({{key: {key_id(key)!r}, view: ''}})")
        page.wait("document.getElementById('value-title')")
    page.wait("document.getElementById('value').textContent.length === 200000")
    assert "the first 200,000 of 1,048,577 characters" in page.text("#shown")
    assert page.evaluate("document.querySelectorAll('main :is(img, script, b, iframe)').length") == 0


def test_what_happens_appears(store: kvstore.Store, visit: Open) -> None:
    """Events, new keys in the tree, new versions of the key that is shown; and the focus stays where it was."""
    store.put(b"config", b"one")
    page = visit()
    page.wait("document.getElementById('watch-status').textContent === 'watching'")
    show(page, "config")
    page.evaluate("document.getElementById('tab-value').focus()")
    store.put(b"config", b"two")
    page.wait("document.getElementById('value').textContent === 'two'")
    assert page.evaluate("document.activeElement.id") == "tab-value"
    store.put(b"new <b>\xff", b"")
    store.delete(b"config")
    page.wait("document.querySelectorAll('#events tbody tr').length === 3")
    page.wait(r"document.getElementById('tree').textContent === 'configdeletednew <b>\\xff'")
    assert [row.split("config")[0] for row in rows(page, "events") if "config" in row] == ["5deleted", "3put"]
    page.wait("document.getElementById('value-title').textContent.includes('deleted')")
    page.click("#events .link", "config")
    page.wait("location.hash.includes('view=changes')")


def test_deleted_keys_can_be_looked_at(store: kvstore.Store, visit: Open) -> None:
    """In the tree and by search, said to be deleted; with their past; and live again when they are made again."""
    store.put_many([(b"old/a", b"was here"), (b"old/b", b"2"), (b"stays", b"1")])
    store.delete(prefix=b"old/")
    page = visit()
    assert page.texts("#tree > .row, #tree > li > .row") == ["old/deleted", "stays"]
    page.click("#tree .name", "old/")
    page.wait("document.querySelectorAll('#tree .gone').length === 3")
    page.click("#tree .name", "a")
    page.wait("document.getElementById('value-title')?.textContent.includes('deleted')")
    page.click("#versions .link", "2")
    page.wait("document.getElementById('value')?.textContent === 'was here'")
    store.put(b"old/a", b"back")
    page.wait("document.querySelectorAll('#tree .gone').length === 1")
    page.press("/")
    page.type("OLD")
    page.wait("document.getElementById('found').textContent === '2 of 3 keys'")
    assert page.texts("#tree .gone") == ["old/bdeleted"]


def test_the_page_goes_on_after_its_server_was_away(store: kvstore.Store, browser: Browser) -> None:
    """It says that it does not watch, and misses nothing of what was written meanwhile."""
    server = kvstore.serve(store, "http://127.0.0.1:0", has_ui=True)
    url = server.endpoints[0]
    page = browser.page()
    page.open(f"{url}/ui/")
    page.wait("document.getElementById('watch-status').textContent === 'watching'")
    store.put(b"a", b"1")
    page.wait("document.querySelectorAll('#events tbody tr').length === 1")
    server.stop(0)
    page.wait("document.getElementById('watch-status').textContent.startsWith('not watching')")
    store.put(b"b", b"1")
    with kvstore.serve(store, url, has_ui=True):
        page.wait("document.querySelectorAll('#events tbody tr').length === 2")
        assert page.texts("#events .link") == ["b", "a"]
        page.send("Page.navigate", url="about:blank")
        page.wait("location.href === 'about:blank'")


def test_older_versions_and_the_address(store: kvstore.Store, visit: Open, address: str) -> None:
    """Of many versions the newest are shown, older ones on demand, and each place is an address."""
    for number in range(100):
        store.put(b"often", b"%d" % number)
    page = visit("#key=often")
    assert page.text("#value") == "99"
    assert page.text("#left-out").startswith("60 older versions")
    page.click("#older")
    page.wait("document.getElementById('value').textContent === '59'")
    page.click("#tab-changes")
    page.wait("document.getElementById('diff')")
    link = page.evaluate("location.href")
    page.evaluate("history.back()")
    page.wait("document.getElementById('value')?.textContent === '59'")
    page.open(link)
    page.wait("document.getElementById('diff')")
    assert page.texts("#diff td") == ["− 58", "+ 59"]


def test_two_revisions_are_compared(store: kvstore.Store, visit: Open) -> None:
    """Which keys differ, and for each what changed between the two."""
    store.put_many([(b"same", b"1"), (b"gone", b"1"), (b"web", deployment(1, "web:1"))])
    older = store.revision
    store.delete(b"gone")
    for number in range(60):
        store.put(b"web", deployment(2 + number, "web:1"))
    store.put(b"made", b"1")
    newer = store.revision
    store.put(b"later", b"1")
    page = visit("#tab=compare")
    page.evaluate(f"byId('older').value = '{older}', byId('newer').value = '{newer}'")
    page.click("#compare")
    page.wait("document.getElementById('differences')")
    assert page.texts("#differences td:first-child") == ["deleted", "added", "changed"]
    assert page.texts("#differences .link") == ["gone", "made", "web"]
    page.click("#differences .link", "web")
    page.wait("document.getElementById('diff')")
    assert page.texts("#diff th") == [f"revision {older}", f"revision {newer - 1}"]
    assert [text[2:].strip() for text in page.texts("#diff td.del")] == ["generation: 1", "replicas: 1"]


def test_a_comparison_goes_on_beyond_its_first_page(store: kvstore.Store, visit: Open) -> None:
    """All that differ can be had, and until then it is said that there are more."""
    store.put_many([(b"k%04d" % number, b"") for number in range(1100)])
    page = visit(f"#tab=compare&older=1&newer={store.revision}")
    page.wait("document.getElementById('differ')?.textContent === 'The first 500 keys that differ'")
    for shown in (1000, 1100):
        page.click("#more-differences")
        page.wait(f"document.querySelectorAll('#differences tbody tr').length === {shown}")
    assert page.text("#differ") == "1,100 keys differ"
    assert rows(page, "differences")[-1].startswith("addedk1099")
    assert page.evaluate("document.getElementById('more-differences')") is None


def test_leases_and_metrics(store: kvstore.Store, visit: Open) -> None:
    """Leases with their keys; plots that move."""
    lease = store.grant_lease(1000, 0x5A).id
    store.put(b"held", b"1", lease=lease)
    page = visit("#tab=leases")
    page.wait("document.getElementById('leases')")
    assert rows(page, "leases")[0].startswith("5a")
    page.click("#leases .link", "held")
    page.wait("document.getElementById('key-about')?.textContent.includes('lease 5a')")
    page.click("#when")
    page.wait("document.getElementById('when-told').textContent.includes('is not kept')")
    page.click("#tab-metrics")
    page.wait("document.querySelectorAll('#plots polyline').length > 3")
    page.wait(
        "[...document.querySelectorAll('#plots polyline')].some((line) => line.getAttribute('points').includes(' '))"
    )


def test_users_log_in_and_see_what_is_theirs(store: kvstore.Store, visit: Open, address: str) -> None:
    """Nothing before that; then what they may read, live too; and the token is kept nowhere."""
    store.put_many([(b"/a/1", b"mine"), (b"/b/1", b"secret")])
    page = visit()
    for path, message in [
        ("user/add", {"name": "root", "password": "r"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("role/add", {"name": "some"}),
        ("role/grant", {"name": "some", "perm": {"key": "L2Ev", "range_end": "L2Ew"}}),
        ("user/add", {"name": "alice", "password": "a"}),
        ("user/grant", {"user": "alice", "role": "some"}),
        ("enable", {}),
    ]:
        page.evaluate(f"call('auth/{path}', {json.dumps(message)}).then(() => 1)")
    page.open(address)
    page.wait("document.getElementById('login')")
    assert page.texts("#tree .name") == []
    page.errors.clear()  # a browser counts an answer of 400 as an error
    for password in ("wrong", "a"):
        page.evaluate(f"byId('user').value = 'alice', byId('password').value = '{password}'")
        page.click("#login button")
        if password == "wrong":
            page.wait("document.querySelector('#login .wrong').textContent.includes('authentication failed')")
            page.errors.clear()
    page.wait("!document.getElementById('login') && document.querySelector('#tree .name')")
    page.wait("document.getElementById('watch-status').textContent === 'watching'")
    page.click("#tree .name", "a/")
    page.wait("document.querySelectorAll('#tree li').length >= 2")
    assert "b/" not in page.texts("#tree .name")
    store.put(b"/b/1", b"secret too")
    store.put(b"/a/2", b"mine too")
    page.wait("document.querySelectorAll('#events tbody tr').length === 1")
    assert page.texts("#events .link") == ["/a/2"]
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_the_page_writes_what_was_seen(store: kvstore.Store, visit: Open) -> None:
    """A new value, a new key, no key; but nothing over what somebody has written since."""
    store.put(b"config", b"one")
    page = visit("#key=config")
    page.click("#writing summary")
    page.evaluate("byId('new-value').value = 'two <b>'")
    page.click("#put")
    page.wait("document.getElementById('value').textContent === 'two <b>'")
    kept = store.get(b"config")
    assert kept is not None and kept.value == b"two <b>"
    page.click("#writing summary")
    page.evaluate("byId('new-value').value = 'mine'")
    store.put(b"config", b"theirs")
    page.click("#put")
    page.wait("document.getElementById('write-told').textContent.includes('has changed')")
    kept = store.get(b"config")
    assert kept is not None and kept.value == b"theirs"

    page.click("#new-key")
    page.type("new/\u05e9 key")
    page.click("#go-to-key")
    page.wait("document.getElementById('no-key')")
    page.click("#writing summary")
    page.click("#new-value")
    page.type("made")
    page.click("#put")
    page.wait("document.getElementById('value')?.textContent === 'made'")
    assert "new/\u05e9 key".encode() in store
    page.evaluate("window.confirm = () => true")
    page.click("#writing summary")
    page.click("#delete")
    page.wait("document.getElementById('value-title')?.textContent.includes('deleted')")
    assert "new/\u05e9 key".encode() not in store


def test_what_is_being_written_is_not_shown_anew(store: kvstore.Store, visit: Open) -> None:
    """Somebody has changed the key, and its versions come when the form has been opened: it stays as it is."""
    store.put(b"config", b"one")
    page = visit("#key=config")
    page.wait("document.getElementById('watch-status').textContent === 'watching'")
    page.evaluate(
        """window.answer = new Promise((give) => { window.give = give; });
        const versions = source.versions;
        source.versions = async (...all) => {
          const found = await versions(...all);
          window.isAsked = true;
          await window.answer;
          return found;
        }; 1"""
    )
    store.put(b"config", b"theirs")
    page.wait("window.isAsked")
    page.click("#writing summary")
    page.evaluate("byId('new-value').value = 'mine'")
    page.evaluate("window.give(), new Promise((done) => setTimeout(() => done(1), 0))")
    assert page.evaluate("byId('new-value').value") == "mine"


def test_the_page_fits_a_phone(store: kvstore.Store, visit: Open) -> None:
    """At 360 pixels nothing scrolls sideways, whatever is shown."""
    fill(store)
    store.put(b"x" * 300, b"held" * 100, lease=store.grant_lease(1000, 2**62).id)
    page = visit(width=PHONE)
    for tab in ("compare", "leases", "users", "metrics", "events"):
        page.click(f"#tab-{tab}")
        page.wait(f"document.querySelector('#tab')?.getAttribute('aria-labelledby') === 'tab-{tab}'")
        assert page.overflow == 0, tab
    for key in (HOSTILE[0], b"config", b"x" * 300, b"big/bytes"):
        page.evaluate(f"go({{key: {key_id(key)!r}, view: 'changes'}})")
        page.wait("document.getElementById('changes-told')")
        assert page.overflow == 0, key


def test_over_tls(store: kvstore.Store, browser: Browser, tmp_path: Path) -> None:
    """Where browsers speak HTTP/2: the page, its questions and its watch."""
    from tests.network.certificates import Authority

    pair = Authority(tmp_path).sign("server", "127.0.0.1")
    url = "https://127.0.0.1:0"
    with kvstore.serve(store, url, has_ui=True, cert_file=pair.cert, key_file=pair.key) as server:
        store.put(b"config", b"one")
        page = browser.page()
        page.send("Security.setIgnoreCertificateErrors", ignore=True)
        page.open(f"{server.endpoints[0]}/ui/#key=config")
        page.wait("document.getElementById('watch-status').textContent === 'watching'")
        store.put(b"config", b"two")
        page.wait("document.getElementById('value').textContent === 'two'")
        assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        assert page.errors == []
        page.send("Page.navigate", url="about:blank")
        page.wait("location.href === 'about:blank'")


class _Elsewhere(BaseHTTPRequestHandler):
    """Another site, whose page tries to use ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<body data-ready='true'><iframe></iframe></body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Serves several connections at once: a browser opens one before it has anything to ask."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_other_sites_cannot_use_the_page(
    store: kvstore.Store, browser: Browser, address: str, elsewhere: str
) -> None:
    """They can neither read what it is told, nor write, nor show it in a frame."""
    store.put(b"k", b"one")
    page = browser.page()
    page.open(elsewhere)
    attempts = [
        f"fetch('{address}api/about', {{headers: {{'X-Kvstore-UI': '1'}}}})",
        f"fetch('{address}api/put', {{method: 'POST', mode: 'no-cors', body: "
        '\'{"key":"k","value":"two","revision":2}\'})',
        f"fetch('{address}')",
    ]
    for attempt in attempts:
        said = page.evaluate(
            f"{attempt}.then((answer) => answer.type === 'opaque' ? 'opaque' : 'read', () => 'refused')"
        )
        assert said in ("refused", "opaque")
    kept = store.get(b"k")
    assert kept is not None and kept.value == b"one"
    page.errors.clear()
    page.evaluate(f"document.querySelector('iframe').src = '{address}'")
    page.wait("document.querySelector('iframe').contentDocument === null")
    page.until(lambda: any("frame" in error for error in page.errors))
