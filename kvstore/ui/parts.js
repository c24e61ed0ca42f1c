/* What all of the page is made of. Keys and values reach the document as text nodes only, never as markup. */

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child || child === ""));
  return element;
}
const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function bytes(number) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1024 || unit === "GiB") return (unit === "B" ? number : number.toFixed(1)) + " " + unit;
    number /= 1024;
  }
}
const count = (number) => Number(number).toLocaleString("en");
const counted = (number, what) => count(number) + " " + what + (Number(number) === 1 ? "" : "s");

/* A section may be made anew while the keyboard is in it: what had the focus has it again. */
function renew(section, ...children) {
  const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
  section.replaceChildren(...children.filter((child) => child));
  if (focused && byId(focused)) byId(focused).focus({preventScroll: true});
}

/* header: numbers, and what they mean */

function showFacts(title, facts) {
  document.title = title;
  byId("title").textContent = title;
  const told = facts.map(([name, value, why]) => make("span", {title: why}, name + " ", make("b", {}, value)));
  const meanings = make("details", {id: "meanings"}, make("summary", {id: "meanings-summary"}, "What the numbers mean"),
    make("dl", {}, ...facts.flatMap(([name, , why]) => [make("dt", {}, name), make("dd", {}, why)])));
  meanings.open = Boolean(byId("meanings") && byId("meanings").open);
  renew(byId("facts"), ...told, meanings);
}

/* the address: #key=…&from=…&to=…&view=…&find=…; a change of it is what makes the page change */

const RAW = new Set(["key", "prefix"]);
let place = {};
const watchers = [];

function placeOf(hash) {
  const found = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    if (at < 1) continue;
    const name = part.slice(0, at), value = part.slice(at + 1);
    try { found[name] = RAW.has(name) ? value : decodeURIComponent(value); } catch { /* no address of ours */ }
  }
  return found;
}

function hashOf(where) {
  const parts = Object.entries(where).filter(([, value]) => value !== undefined && value !== "");
  return "#" + parts.map(([name, value]) => name + "=" + (RAW.has(name) ? value : encodeURIComponent(value))).join("&");
}

/* Go to another place: a step that "back" takes back, or, quietly, the same step. */
function go(changes, quietly) {
  const hash = hashOf({...place, ...changes});
  if (hash === (location.hash || "#")) return;
  if (quietly) { history.replaceState(null, "", hash); arrive(); }
  else location.hash = hash;
}

function arrive() {
  const before = place;
  place = placeOf(location.hash);
  for (const {names, show} of watchers) {
    if (names.some((name) => before[name] !== place[name])) show();
  }
}
window.addEventListener("hashchange", arrive);

/* show is called whenever one of these parts of the address is another one */
const whenever = (names, show) => watchers.push({names, show});

/* the tree of keys, with the keyboard of a tree (WAI-ARIA): a source gives the children of a node, page by page */

const tree = byId("tree");

function treeItem(node) {
  const item = make("li", {role: "treeitem", tabindex: "-1", "aria-expanded": node.branch ? "false" : undefined},
    make("div", {}, make("span", {class: "mark", "aria-hidden": "true"}), make("bdi", {class: "name"}, node.name),
      make("span", {class: "number"})));
  tell(item, node);
  return item;
}

/* What a node is now: where numbers were not asked for again, as before. */
function tell(item, node) {
  const row = item.firstChild, was = item.node;
  row.className = node.gone ? "row gone" : "row";
  row.title = node.title || node.name;
  if (node.numbers !== undefined || !was || was.gone) row.lastChild.textContent = node.numbers || "";
  item.node = node;
}

async function addChildren(list, node, after) {
  const page = await source.children(node, after);
  const old = list.querySelector(":scope > .more");
  const had = old === document.activeElement;
  const items = page.nodes.map(treeItem);
  if (page.after !== undefined) {
    const more = treeItem({name: page.more || "Show more", more: () => addChildren(list, node, page.after)});
    more.classList.add("more");
    items.push(more);
  }
  if (old) old.remove();
  list.append(...items);
  if (had && items.length) focusOn(items[0]);
  mark();
}

async function openBranch(item) {
  if (!item.node.branch) return;
  item.setAttribute("aria-expanded", "true");
  let list = item.querySelector(":scope > ul");
  if (list) { list.hidden = false; return; }
  list = make("ul", {role: "group"});
  item.append(list);
  await addChildren(list, item.node);
}

function closeBranch(item) {
  item.setAttribute("aria-expanded", "false");
  const list = item.querySelector(":scope > ul");
  if (list) list.hidden = true;
}
const isOpen = (item) => item.getAttribute("aria-expanded") === "true";

async function act(item) {
  focusOn(item);
  if (item.node.more) return item.node.more();
  if (item.node.key !== undefined) return go({key: item.node.key, before: "", from: "", to: ""});
  if (isOpen(item)) closeBranch(item); else await openBranch(item);
  if (isOpen(item) && item.node.prefix !== undefined) go({prefix: item.node.prefix}, true);
}

const isSeen = (item) => item.getClientRects().length > 0;
const seen = () => [...tree.querySelectorAll("li")].filter(isSeen);

function focusOn(item) {
  for (const other of tree.querySelectorAll('li[tabindex="0"]')) other.tabIndex = -1;
  item.tabIndex = 0;
  item.focus({preventScroll: true});
  item.firstChild.scrollIntoView({block: "nearest"});
}

/* The key that is shown is the chosen one; Tab leads to it, or to the first. */
function mark() {
  let chosen = null;
  for (const item of tree.querySelectorAll("li")) {
    const is = item.node.key !== undefined && item.node.key === place.key;
    if (item.node.key !== undefined) item.setAttribute("aria-selected", String(is));
    if (is) chosen = item;
  }
  if (!tree.querySelector('li[tabindex="0"]')) {
    const first = chosen || tree.querySelector("li");
    if (first) first.tabIndex = 0;
  }
  return chosen;
}

tree.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) act(item);
});

tree.addEventListener("keydown", async (event) => {
  const item = event.target.closest("li");
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = (by) => { const all = seen(); const next = all[all.indexOf(item) + by]; if (next) focusOn(next); };
  const parent = item.parentElement.closest("li");
  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    ArrowRight: () => item.node.branch && !isOpen(item) ? openBranch(item) : item.node.branch ? move(1) : undefined,
    ArrowLeft: () => isOpen(item) ? closeBranch(item) : parent && focusOn(parent),
    Home: () => focusOn(seen()[0]),
    End: () => focusOn(seen().at(-1)),
    Enter: () => act(item),
    " ": () => act(item),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  await keys[event.key]();
});

/* A lone branch opens by itself; so does the way to the key of the address. */
async function openTheWay() {
  let list = tree;
  for (;;) {
    const items = [...list.children].filter((item) => item.node && item.node.branch);
    const lone = list.children.length === 1 ? items[0] : undefined;
    const next = lone || items.find((item) => place.key && place.key.startsWith(item.node.prefix));
    if (!next) break;
    await openBranch(next);
    list = next.querySelector(":scope > ul");
  }
  const chosen = mark();
  if (chosen) chosen.firstChild.scrollIntoView({block: "nearest"});
}

/* search */

const search = byId("search");
let searching = 0;

async function showKeys() {
  const turn = ++searching, words = (place.find || "").toLowerCase().split(/\s+/).filter((word) => word);
  if (search.value !== (place.find || "") && document.activeElement !== search) search.value = place.find || "";
  if (!words.length) {
    tree.replaceChildren();
    byId("found").textContent = "";
    await addChildren(tree, null);
    if (turn === searching) await openTheWay();
    return;
  }
  await source.find(words, (nodes, told, isFirst) => {
    if (turn !== searching) return false;
    if (isFirst) tree.replaceChildren();
    tree.append(...nodes.map(treeItem));
    byId("found").textContent = told;
    mark();
    return true;
  });
}

search.addEventListener("input", () => go({find: search.value}, true));
search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && seen().length) { event.preventDefault(); focusOn(seen()[0]); }
  if (event.key === "Enter" && seen().length) { event.preventDefault(); act(seen()[0]); }
});

document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "radio";
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && event.target === search && search.value) {
    event.preventDefault();
    search.value = "";
    go({find: ""}, true);
  } else if (event.key === "Escape") {
    const item = tree.querySelector('li[tabindex="0"]') || tree.querySelector("li");
    if (item) focusOn(item);
  }
});

/* tabs: one of several views, with the keyboard of tabs */

function tabs(label, choices, chosen, choose) {
  const list = make("div", {class: "tabs", role: "tablist", "aria-label": label});
  for (const [name, title] of choices) {
    list.append(make("button", {type: "button", role: "tab", id: "tab-" + name, "data-name": name,
      "aria-selected": String(name === chosen), tabindex: name === chosen ? "0" : "-1",
      click: () => choose(name)}, title));
  }
  list.addEventListener("keydown", (event) => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!by) return;
    event.preventDefault();
    const all = [...list.children], next = all.at((all.indexOf(document.activeElement) + by) % all.length);
    next.focus();
    choose(next.dataset.name);
  });
  return list;
}

/* a section among the panels */
function panel(id, label) {
  const section = make("section", {id, "aria-label": label});
  byId("panels").append(section);
  return section;
}
const isNarrow = () => matchMedia("(max-width: 900px)").matches;
const plotWidth = () => Math.max(260, Math.min(640, byId("key").clientWidth - 28));
