/* A saved page: all that it shows is inside the document.

   Keys are sorted, so a prefix is a stretch of them; sums of a stretch come from running totals. */

const keys = data.keys;
const idOf = (key) => key.id !== undefined ? key.id : encodeURIComponent(key.name).replaceAll("%2F", "/");
const byKeyId = new Map(keys.map((key, at) => [idOf(key), at]));
const FOUND_MAX = 500, CHILDREN_PAGE = 500;

const totals = {live: [0], garbage: [0], present: [0]};
for (const key of keys) {
  totals.live.push(totals.live.at(-1) + key.live);
  totals.garbage.push(totals.garbage.at(-1) + key.garbage);
  totals.present.push(totals.present.at(-1) + (key.live > 0 ? 1 : 0));
}
const sum = (what, node) => totals[what][node.end] - totals[what][node.start];
const total = (node) => sum("live", node) + sum("garbage", node);

function keyNode(at, name) {
  const key = keys[at];
  return {name: name || key.name, title: key.name + (key.live ? "" : " (deleted; a version of it, or the delete, is kept)"),
    numbers: (key.live ? "" : "deleted · ") + bytes(key.live + key.garbage), key: idOf(key), gone: !key.live,
    start: at, end: at + 1};
}

/* The keys from start to end, which all begin with prefix. If they begin alike further on, the node is of that. */
function branch(start, end, prefix, shown) {
  const first = keys[start].name, last = keys[end - 1].name;
  let same = 0;
  while (same < first.length && first[same] === last[same]) same++;
  const cut = data.separator ? first.slice(0, same).lastIndexOf(data.separator) + data.separator.length : 0;
  const whole = cut > prefix.length && data.separator ? first.slice(0, cut) : prefix;
  const node = {start, end, prefix: encodeURIComponent(whole).replaceAll("%2F", "/"), text: whole, branch: true,
    name: whole.slice(shown) || "(all)"};
  const present = sum("present", node), gone = end - start - present;
  node.numbers = counted(present, "key") + (gone ? ` · ${count(gone)} deleted` : "") + " · " + bytes(total(node));
  node.title = `${whole}: ${counted(present, "live key")}, ${count(gone)} deleted; ${bytes(sum("live", node))} live, `
    + `${bytes(sum("garbage", node))} superseded`;
  return node;
}

function childrenOf(node) {
  if (node.children) return node.children;
  const found = [], length = node.text.length;
  for (let at = node.start; at < node.end;) {
    const name = keys[at].name;
    const cut = data.separator ? name.indexOf(data.separator, length) : -1;
    if (cut < 0) { found.push(keyNode(at, name.slice(length) || name)); at++; continue; }
    const prefix = name.slice(0, cut + data.separator.length);
    let end = at + 1;
    while (end < node.end && keys[end].name.startsWith(prefix)) end++;
    if (end === at + 1) found.push(keyNode(at, name.slice(length)));
    else found.push(branch(at, end, prefix, length));
    at = end;
  }
  node.children = found;
  return found;
}

const root = keys.length ? branch(0, keys.length, "", 0) : {start: 0, end: 0, text: "", prefix: "", children: []};
const everything = {start: 0, end: keys.length, text: "", prefix: "", children: keys.length ? [root] : []};

const source = {
  first: keys.length ? idOf(keys[0]) : undefined,

  async children(node, after = 0) {
    const all = node ? childrenOf(node) : root.text ? everything.children : childrenOf(root);
    const left = all.length - after - CHILDREN_PAGE;
    return {nodes: all.slice(after, after + CHILDREN_PAGE), after: left > 0 ? after + CHILDREN_PAGE : undefined,
      more: `Show more: ${count(left)} are left`};
  },

  async find(words, show) {
    const found = [];
    let number = 0;
    keys.forEach((key, at) => {
      const name = key.name.toLowerCase();
      if (words.every((word) => name.includes(word)) && ++number <= FOUND_MAX) found.push(keyNode(at));
    });
    show(found, `${count(number)} of ${counted(keys.length, "key")}`
      + (number > FOUND_MAX ? `, the first ${FOUND_MAX} shown` : ""), true);
  },

  async versions(id) {
    const key = keys[byKeyId.get(id)];
    if (!key) return null;
    const all = key.versions.length + key.more;
    const about = (key.live ? `${bytes(key.live)} live, ` : "Deleted. ")
      + `${bytes(key.garbage)} superseded; ${count(all)} kept ${all === 1 ? "version" : "versions and deletes"}`;
    const note = !key.more ? "" : key.versions.length
      ? `${count(key.more)} more versions, spread over the whole time, are not in this page.`
      : "This page does not have the values of this key: it has those of the largest, the most changed, and some of the others.";
    return {name: key.name, about, versions: key.versions, note};
  },

  async value(_id, version) { return version; },

  span() { return [data.growth[0].revision, data.growth.at(-1).revision]; },
};

/* map of sizes: each half of the space gets half of the bytes */

const COLORS = ["#2f6fde", "#2a8f6d", "#8a5bd6", "#c2577e", "#4b7f9e", "#7a7f2e", "#b0672f", "#5a6bbf"];

function split(nodes, x, y, width, height, put) {
  if (nodes.length === 1) {
    put(nodes[0], x, y, width, height);
    return;
  }
  const all = nodes.reduce((found, node) => found + total(node), 0);
  let at = 0, found = 0;
  do found += total(nodes[at++]); while (at < nodes.length - 1 && found + total(nodes[at]) / 2 < all / 2);
  const share = all ? found / all : 0.5;
  if (width > height) {
    split(nodes.slice(0, at), x, y, width * share, height, put);
    split(nodes.slice(at), x + width * share, y, width * (1 - share), height, put);
  } else {
    split(nodes.slice(0, at), x, y, width, height * share, put);
    split(nodes.slice(at), x, y + height * share, width, height * (1 - share), put);
  }
}

/* The node of a prefix, found from the root. */
function nodeOf(prefix) {
  let node = root;
  while (prefix && prefix !== node.prefix) {
    const next = childrenOf(node).find((child) => child.branch && prefix.startsWith(child.prefix));
    if (!next) return root;
    node = next;
  }
  return node;
}

function showMap() {
  const node = nodeOf(place.prefix), width = plotWidth(), height = 260;
  const map = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Size by prefix"});
  const nodes = childrenOf(node).filter((child) => total(child) > 0).sort((one, other) => total(other) - total(one)).slice(0, 60);
  const open = (child) => child.branch ? go({prefix: child.prefix}) : go({key: child.key, from: "", to: ""});
  let color = 0;
  if (nodes.length) split(nodes, 0, 0, width, height, (child, x, y, wide, high) => {
    const tile = draw("rect", {x, y, width: wide, height: high, class: "tile", fill: COLORS[color++ % COLORS.length],
      click: () => open(child)});
    tile.append(draw("title", {}, `${child.name}: ${child.numbers}`));
    map.append(tile);
    const letters = Math.floor((wide - 10) / 7);
    if (high > 18 && letters > 3) {
      const name = child.name.length > letters ? child.name.slice(0, letters - 1) + "…" : child.name;
      map.append(draw("text", {x: x + 5, y: y + 14, class: "tile-name"}, name));
    }
  });
  const up = make("button", {class: "link", type: "button", id: "map-up", disabled: node === root, click: () => go({prefix: ""})},
    node === root ? root.text || "everything" : "◂ " + node.text);
  const share = total(node) ? Math.round(sum("garbage", node) * 100 / total(node)) : 0;
  renew(byId("map"), make("h2", {}, "Size by prefix"), up, map, make("p", {class: "soft"},
    `${node.numbers || ""}: ${bytes(sum("live", node))} live, ${bytes(sum("garbage", node))} superseded (${share} %)`));
}

/* growth */

function showGrowth() {
  const width = plotWidth(), height = 170, bottom = 20, first = data.growth[0], last = data.growth.at(-1);
  const most = Math.max(1, ...data.growth.map((point) => point.kept));
  const along = (revision) => 8 + (revision - first.revision) / Math.max(1, last.revision - first.revision) * (width - 16);
  const up = (number) => height - bottom - number / most * (height - bottom - 12);
  const points = (name) => data.growth.map((point) => `${along(point.revision)},${up(point[name])}`).join(" ");
  const plot = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    `From revision ${first.revision} to ${last.revision}: now ${bytes(last.live)} live, ${bytes(last.kept)} in all`});
  for (const [name, color] of [["kept", "garbage"], ["live", "live"]]) {
    plot.append(draw("polyline", {points: points(name), class: "curve " + color}));
  }
  plot.append(draw("text", {x: 8, y: height - 4}, "revision " + count(first.revision)));
  plot.append(draw("text", {x: width - 8, y: height - 4, "text-anchor": "end"}, count(last.revision)));
  plot.append(draw("text", {x: 8, y: 11}, bytes(most)));
  renew(byId("growth"), make("h2", {}, "Growth over revisions"), plot, make("div", {class: "legend"},
    make("span", {title: "What a compaction would free is the space between the two"}, make("i", {class: "garbage"}), "all kept versions"),
    make("span", {title: "Keys that exist, with their newest values"}, make("i", {class: "live"}), "live keys")));
}

/* top lists */

const LISTS = [["largest", "Largest"], ["hottest", "Most changed"], ["wasteful", "Largest past"]];
const MEANINGS = {largest: "Bytes of key and newest value", hottest: "Kept versions and deletes",
  wasteful: "Bytes of superseded versions, which a compaction frees"};

function showTop() {
  const name = data.top[place.list] ? place.list : "largest";
  const rows = data.top[name].map(([at, number]) => make("tr", {},
    make("td", {class: "key"}, make("button", {type: "button", class: "link", click: () => go({key: idOf(keys[at]), from: "", to: ""})},
      make("bdi", {}, keys[at].name))),
    make("td", {class: "number"}, name === "hottest" ? count(number) : bytes(number))));
  renew(byId("top"), tabs("Lists of keys", LISTS, name, (list) => go({list: list === "largest" ? "" : list})),
    make("table", {role: "tabpanel", "aria-labelledby": "tab-" + name}, make("caption", {class: "soft"}, MEANINGS[name]),
      make("tbody", {}, ...rows)));
}

panel("map", "Size by prefix");
panel("growth", "Growth");
panel("top", "Lists of keys");
whenever(["prefix"], showMap);
whenever(["list"], showTop);

function showPlots() { showMap(); showGrowth(); showKey(); }
let plotted = 0;
window.addEventListener("resize", () => { if (plotWidth() !== plotted) { plotted = plotWidth(); showPlots(); } });

(async () => {
  showFacts(data.title, data.facts);
  place = placeOf(location.hash);
  plotted = plotWidth();
  await Promise.all([showKeys(), showKey()]);
  showMap();
  showGrowth();
  showTop();
  document.body.dataset.ready = "true";
})();
