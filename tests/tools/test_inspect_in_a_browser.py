"""The page that ``kvstore inspect … --html`` writes, clicked through in a real headless browser."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.harness.browser import Browser, Page, needs_browser
from tests.harness.hostile_store import HOSTILE, SIBLINGS
from tests.tools.inspected_page import page_in

pytestmark = needs_browser
DESKTOP, PHONE = 1200, 360


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_in(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened anew at the width of a desktop; nothing in it may have failed."""
    page = browser.page(DESKTOP)
    page.open(address)
    yield page
    assert page.errors == []
    assert page.evaluate("document.body.dataset.hacked") is None


def test_a_browser_takes_its_files_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has ended, nothing of it is in the temporary directory."""
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket may have 108 bytes: not tmp_path
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with Browser() as browser:
            browser.page()
            assert os.listdir(folder) != []
        assert os.listdir(folder) == []


def show(page: Page, key: str) -> None:
    """Click on a key at the top of the tree."""
    page.click("#tree .name", key)
    page.wait(f"document.getElementById('key-name').textContent === {json.dumps(key)}")


def compare(page: Page) -> None:
    page.click("#tab-changes")
    page.wait("document.querySelector('#changes-told')")


def sides(page: Page, kind: str) -> list[str]:
    """The lines that differ: ``del`` or ``ins``, without their marks."""
    return [text[2:] for text in page.texts(f"#diff td.{kind}")]


def test_the_page_shows_the_store_and_explains_its_numbers(page: Page) -> None:
    """Header, tree, size map, growth and lists are drawn under the policy; each number says what it means."""
    assert page.text("#title") == "<title>&amp; a store"
    assert {"Size by prefix", "Growth over revisions"} <= set(page.texts("h2"))
    assert page.evaluate("document.querySelectorAll('#growth polyline').length") == 2
    assert page.evaluate("document.querySelectorAll('#map rect').length") > 3
    assert page.evaluate("[...document.querySelectorAll('#facts > span')].every((each) => each.title)")
    page.click("#meanings summary")
    page.wait("document.getElementById('meanings').open")
    assert "Keys that do not exist any more" in page.text("#meanings dl")


def test_hostile_keys_and_values_are_shown_and_do_nothing(page: Page, address: str) -> None:
    """Markup in keys and values is text; each key can be opened, and its link opens it again."""
    names = page.texts("#tree .name")
    assert HOSTILE[0].decode() in names
    assert "\\u202eright to left \u05e9\u05dc\u05d5\u05dd" in names
    assert "\\xff\\xfe\\x00\\x01" in names
    for at in range(len(names)):
        item = f"document.querySelectorAll('#tree > li')[{at}]"
        if page.evaluate(f"{item}.node.branch"):
            continue
        page.evaluate(f"{item}.firstChild.click()")
        page.wait(
            f"keys[byKeyId.get({item}.node.key)].name === document.getElementById('key-name').textContent"
        )
        assert page.evaluate("document.querySelectorAll('main :is(img, script, b, iframe)').length") == 0
    show(page, HOSTILE[0].decode())
    link = page.evaluate("location.href")
    page.open(link)
    assert page.text("#key-name") == HOSTILE[0].decode()
    assert page.text("#value") == HOSTILE[0].decode()


def test_long_keys_that_begin_alike_are_two_keys(page: Page) -> None:
    """Names that are cut have addresses of their own."""
    page.evaluate("go({find: 'longlong'})")
    page.wait("document.querySelectorAll('#tree li').length === 2")
    ids = page.evaluate("[...document.querySelectorAll('#tree li')].map((item) => item.node.key)")
    assert len(set(ids)) == 2
    for at, end in enumerate("12"):
        page.evaluate(f"document.querySelectorAll('#tree li')[{at}].firstChild.click()")
        page.wait(f"document.getElementById('value').textContent.endsWith('{end}')")


def test_every_key_can_be_found(page: Page) -> None:
    """Words in any order and case, among all keys; also those that the tree does not list at once."""
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.type("POD-3 registry")
    page.wait("document.getElementById('found').textContent.startsWith('10 of ')")
    assert page.evaluate("document.querySelectorAll('#tree li').length") == 10
    page.press("Escape")
    page.wait(
        "document.getElementById('search').value === '' && document.querySelectorAll('#tree li').length > 10"
    )
    page.click("#tree .name", "/")
    page.click("#tree .name", "many/")
    page.wait("document.querySelector('#tree .more')")
    siblings = "[...document.querySelectorAll('#tree .name')].filter((name) => /^key-/.test(name.textContent)).length"
    assert page.evaluate(siblings) == 500
    for shown in (1000, SIBLINGS):
        page.evaluate("document.querySelector('#tree .more > .row').click()")
        page.wait(f"{siblings} === {shown}")
    assert page.evaluate("document.querySelector('#tree .more')") is None


def test_a_deleted_key_is_told_apart(page: Page) -> None:
    """Tree, value and versions say that it was deleted, and what it was is still there."""
    show(page, "gone")
    assert page.evaluate("document.querySelector('#tree .row.gone .name').textContent") == "gone"
    assert "the key was deleted" in page.text("#value-title")
    compare(page)
    assert (sides(page, "del"), sides(page, "ins")) == (["1"], [])


def test_versions_of_a_key_and_what_is_left_out(page: Page) -> None:
    """All five versions of one key; of one with a hundred it says how many are not in the page."""
    show(page, "hot")
    assert page.text("#value") == "</script><b>bold</b>"
    assert page.evaluate("document.querySelectorAll('#versions tbody tr').length") == 5
    show(page, "often")
    shown = page.evaluate("document.querySelectorAll('#versions tbody tr').length")
    assert page.text("#left-out").startswith(f"{100 - shown} more versions")


def test_what_changed_in_an_object(page: Page) -> None:
    """A Kubernetes object is compared as YAML, side by side, with the path of what is folded away."""
    page.evaluate("go({key: '/registry/deployments/shop/web'})")
    page.wait("document.getElementById('key-name').textContent.endsWith('/web')")
    assert "spec › replicas, spec › template › spec › containers › image" in page.text("#versions tbody tr")
    compare(page)
    removed, added = sides(page, "del"), sides(page, "ins")
    assert [line.strip() for line in removed] == ["generation: 3", "replicas: 3", "image: web:1"]
    assert [line.strip() for line in added] == ["generation: 5", "replicas: 5", "image: web:2"]
    assert page.texts("#diff td.ins ins") == ["5", "5", "2"]
    left, right = page.evaluate(
        "[...document.querySelector('#diff tr.other').cells].map((cell) => cell.getBoundingClientRect().x)"
    )
    assert left < right


def test_an_object_says_who_wrote_it_and_when(page: Page) -> None:
    """As its managed fields have it; nothing, where they tell a time that cannot be."""
    page.evaluate("go({key: '/registry/leases/node-1'})")
    page.wait("document.getElementById('key-name').textContent.endsWith('node-1')")
    newest, older = page.texts("#versions tbody tr")
    assert "written by" not in newest
    assert older.endswith("written by kubelet<b> at 2026-02-02 02:40:00 UTC")


def test_what_changed_in_json_is_data_not_layout(page: Page) -> None:
    """Members in another order are the same; a number that JavaScript would round is not."""
    show(page, "config")
    compare(page)
    assert [line.strip() for line in sides(page, "del")] == [f'"id": {2**60}']
    assert [line.strip() for line in sides(page, "ins")] == [f'"id": {2**60 + 1}']


def test_a_difference_that_is_not_shown_is_not_denied(page: Page) -> None:
    """Two long values that differ at their ends: the page says that it shows their beginnings alone."""
    page.evaluate("go({key: 'big/text'})")
    page.wait("document.getElementById('key-name').textContent === 'big/text'")
    assert "1.0 MiB" in page.text("#value-title")
    assert "the first 20,000 of 1,048,577 characters" in page.text("#shown")
    compare(page)
    assert "what is left out does" in page.text("#changes-told")


def test_the_address_holds_the_state(page: Page) -> None:
    """Key, versions, view, search and list are in the address: back, forward and a link that is sent."""
    show(page, "often")
    revisions = page.evaluate(
        "source.versions('often').then((key) => key.versions.map((one) => one.revision))"
    )
    page.click(f"#from-{revisions[0]}")
    page.wait("document.querySelector('#changes-told')")
    page.click("#tab-hottest")
    page.wait("document.getElementById('tab-hottest').getAttribute('aria-selected') === 'true'")
    page.press("/")
    page.type("of")
    page.wait("location.hash.includes('find=of')")
    link = page.evaluate("location.href")
    told = page.text("#changes-told")

    page.evaluate("history.back()")
    page.wait("document.getElementById('tab-largest').getAttribute('aria-selected') === 'true'")
    page.evaluate("history.back()")
    page.wait("!document.querySelector('#changes-told')")
    page.evaluate("history.forward()")
    page.wait("document.querySelector('#changes-told')")

    page.open(link)
    page.wait("document.querySelector('#changes-told')")
    assert page.text("#changes-told") == told
    assert page.evaluate("document.getElementById('search').value") == "of"
    assert page.evaluate("document.getElementById('tab-hottest').getAttribute('aria-selected')") == "true"
    assert page.evaluate(f"document.getElementById('from-{revisions[0]}').checked")


def test_a_link_to_what_is_not_there_says_so(page: Page, address: str) -> None:
    """A key that the store does not have, or an address that is none."""
    page.open(address + "#key=no/such%20key&from=x&to=%")
    assert "no such key" in page.text("#no-key")


def test_the_tree_by_keyboard(page: Page) -> None:
    """Arrows walk and open, Enter shows, the focus can be seen, and Escape comes back from elsewhere."""
    page.press("/", "ArrowDown")
    name = "document.activeElement.querySelector('.name').textContent"
    first = page.evaluate(name)
    page.press("ArrowDown")
    assert page.evaluate(name) == "/" != first
    page.press("ArrowRight")
    page.wait("document.activeElement.getAttribute('aria-expanded') === 'true'")
    page.press("ArrowRight")
    assert page.evaluate(name) == "/" * 299
    assert (
        page.evaluate("getComputedStyle(document.activeElement.querySelector('.row')).outlineStyle")
        == "solid"
    )
    page.press("ArrowLeft")
    assert page.evaluate(name) == "/"
    page.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.press("End", "ArrowUp", "Home")
    assert page.evaluate(name) == first
    page.press("Enter")
    page.wait("document.getElementById('key-name').textContent === " + name)
    page.wait("document.activeElement.getAttribute('aria-selected') === 'true'")
    page.press("Tab")
    assert page.evaluate("document.activeElement.closest('#key') !== null")
    page.press("Escape")
    assert page.evaluate(name) == first


def test_tabs_and_versions_by_keyboard(page: Page) -> None:
    """Tabs are chosen with arrows, and the focus stays where it was when the section is made anew."""
    show(page, "often")
    page.evaluate("document.getElementById('tab-value').focus()")
    page.press("ArrowRight")
    page.wait("document.querySelector('#changes-told')")
    assert page.evaluate("document.activeElement.id") == "tab-changes"
    page.evaluate("document.querySelector('input[name=to]:checked').focus()")
    before = page.evaluate("document.activeElement.id")
    page.press("ArrowDown")
    page.wait(f"document.activeElement.id.startsWith('to-') && document.activeElement.id !== '{before}'")
    page.wait("location.hash.includes(document.activeElement.id.replace('-', '='))")


def test_every_control_has_a_name(page: Page) -> None:
    """What assistive software reads: roles and names of all that can be used."""
    page.evaluate("go({key: 'often', view: 'changes'})")
    page.wait("document.querySelector('#changes-told')")
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    used = {"button", "textbox", "searchbox", "radio", "tab", "treeitem", "table", "img", "navigation"}
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in used]
    assert len(shown) > 20
    assert [node for node in shown if not node.get("name", {}).get("value")] == []


def test_the_page_fits_a_phone(page: Page, address: str) -> None:
    """At 360 pixels nothing scrolls sideways, whatever is opened, and the two sides stand one above the other."""
    page.resize(PHONE)
    page.open(address)
    assert page.overflow == 0
    for key in ("hot", "config", "often", HOSTILE[0].decode(), HOSTILE[1].decode(), "__proto__"):
        page.click("#tree .name", key)
        page.wait("document.getElementById('versions')")
        assert page.overflow == 0, key
    for key in ("big/text", "big/bytes", "big/json", "/registry/deployments/shop/web", "/" * 300):
        page.evaluate(f"go({{key: {key!r}, view: 'changes'}})")
        page.wait("document.querySelector('#changes-told')")
        assert page.overflow == 0, key
    page.evaluate("go({key: 'config', find: 'longlong'})")
    page.wait(
        "document.querySelector('#diff tr.other') && document.querySelectorAll('#tree li').length === 2"
    )
    assert page.overflow == 0
    boxes = page.evaluate(
        "[...document.querySelector('#diff tr.other').cells].map((cell) => cell.getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["x"] == boxes[1]["x"]
    assert boxes[0]["bottom"] <= boxes[1]["top"]


def test_on_a_phone_a_chosen_key_comes_into_view(page: Page, address: str) -> None:
    """A click on a key brings its value before the eyes."""
    page.resize(PHONE)
    page.open(address)
    show(page, "hot")
    page.wait("document.getElementById('key').getBoundingClientRect().top < 300")


def test_differences_are_right_and_short(page: Page) -> None:
    """Of drawn lists of lines: each side can be made of the steps, which are as few as there can be."""
    wrong = page.evaluate("""(() => {
      let seed = 7;
      const draw = (most) => (seed = (seed * 1103515245 + 12345) % 2147483648) % most;
      const fewest = (old, now) => {  // the plain way, for short lists
        const rows = Array.from({length: old.length + 1}, () => new Array(now.length + 1).fill(0));
        for (let at = old.length; at >= 0; at--) for (let on = now.length; on >= 0; on--) {
          if (at === old.length || on === now.length) rows[at][on] = old.length - at + now.length - on;
          else if (old[at] === now[on]) rows[at][on] = rows[at + 1][on + 1];
          else rows[at][on] = 1 + Math.min(rows[at + 1][on], rows[at][on + 1]);
        }
        return rows[0][0];
      };
      for (let turn = 0; turn < 2000; turn++) {
        const list = () => Array.from({length: draw(12)}, () => "abcd"[draw(4)]);
        const old = list(), now = list(), steps = compared(old, now);
        const left = steps.filter((step) => step.kind !== "+").map((step) => old[step.old]).join("");
        const right = steps.filter((step) => step.kind !== "-").map((step) => now[step.now]).join("");
        const changes = steps.filter((step) => step.kind !== "=").length;
        if (left !== old.join("") || right !== now.join("") || changes !== fewest(old, now)) return [old, now, steps];
      }
      return null;
    })()""")
    assert wrong is None


def test_values_that_have_nothing_in_common_are_compared_in_good_time(page: Page) -> None:
    """Both are shown whole, one for the other, and nothing hangs."""
    steps = page.evaluate("""(() => {
      const list = (mark) => Array.from({length: 20000}, (_, at) => mark + at);
      const steps = compared(list("a"), list("b"));
      return [steps.length, steps.filter((step) => step.kind === "-").length];
    })()""")
    assert steps == [40_000, 20_000]


def test_json_is_arranged_as_data(page: Page) -> None:
    """Members in any order come to the same lines; any change of data to others."""
    lines = page.evaluate("""(() => {
      const text = (value) => JSON.stringify(value, null, 2);
      const one = {b: [1, {y: [], x: {}}], a: "}, ]", "c,": null};
      const other = {"c,": null, a: "}, ]", b: [1, {x: {}, y: []}]};
      const third = {"c,": null, a: "}, ]", b: [{x: {}, y: []}, 1]};
      return [one, other, third].map((value) => arranged(text(value)).join("|"));
    })()""")
    assert lines[0] == lines[1] != lines[2]
