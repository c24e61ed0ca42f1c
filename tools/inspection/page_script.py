"""What the page does. Keys and values reach the document as text nodes only, never as markup."""

SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "click") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function bytes(number) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1024 || unit === "GiB") return (unit === "B" ? number : number.toFixed(1)) + " " + unit;
    number /= 1024;
  }
}
const count = (number) => number.toLocaleString("en");
const total = (node) => node.live + node.garbage;

/* header */

document.title = data.title;
byId("title").textContent = data.title;
for (const [name, value] of data.facts) {
  byId("facts").append(make("span", {}, name + " ", make("b", {}, value)));
}

/* tree */

function treeRow(name, numbers, mark, click) {
  return make("button", {class: "row", type: "button", title: name, click},
    make("span", {class: "mark"}, mark), make("span", {class: "name"}, name),
    make("span", {class: "number"}, numbers));
}

function treeNode(node) {
  const item = make("li", {});
  if (node.key !== undefined) {
    const row = treeRow(node.name, bytes(total(node)), "", () => { choose(row); showKey(node.key); });
    row.dataset.key = node.key;
    item.append(row);
    return item;
  }
  const numbers = count(node.keys) + " keys · " + bytes(total(node));
  let list = null;
  const row = treeRow(node.name, numbers, node.children.length ? "▸" : "", () => {
    choose(row);
    showMap(node);
    if (list === null) {
      list = treeList(node);
      item.append(list);
    } else {
      list.hidden = !list.hidden;
    }
    row.firstChild.textContent = node.children.length ? (list.hidden ? "▸" : "▾") : "";
  });
  item.append(row);
  return item;
}

function treeList(node) {
  const list = make("ul", {}, ...node.children.map(treeNode));
  if (node.more) list.append(make("li", {class: "soft"}, count(node.more) + " more, not in this page"));
  return list;
}

let chosen = null;
function choose(row) {
  if (chosen) chosen.classList.remove("chosen");
  chosen = row;
  row.classList.add("chosen");
}

function search(text) {
  const tree = byId("tree");
  tree.replaceChildren();
  if (!text) {
    if (data.tree.full) tree.append(make("div", {class: "key soft"}, data.tree.full));
    tree.append(treeList(data.tree));
    return;
  }
  const list = make("ul", {});
  const words = text.toLowerCase().split(/\s+/).filter((word) => word);
  let found = 0;
  data.keys.forEach((key, index) => {
    const name = key.name.toLowerCase();
    if (!words.every((word) => name.includes(word)) || ++found > 500) return;
    const row = treeRow(key.name, bytes(key.live + key.garbage), "", () => { choose(row); showKey(index); });
    list.append(make("li", {}, row));
  });
  const told = count(found) + " of " + count(data.keys.length) + " keys" + (found > 500 ? ", the first 500 shown" : "");
  tree.append(make("p", {class: "soft", id: "found"}, told), list);
}
byId("search").addEventListener("input", (event) => search(event.target.value));

/* one key */

const PLOT = {width: 640, left: 8, right: 8};

function along(revision) {
  const first = data.growth[0].revision, last = data.growth[data.growth.length - 1].revision;
  const share = last > first ? (revision - first) / (last - first) : 0.5;
  return PLOT.left + Math.max(0, share) * (PLOT.width - PLOT.left - PLOT.right);
}

function showKey(index) {
  const key = data.keys[index];
  const line = draw("svg", {viewBox: "0 0 640 44", role: "img", "aria-label": "timeline"});
  line.append(draw("line", {x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: 20, y2: 20, stroke: "var(--line)"}));
  key.versions.forEach((version) => {
    const color = version.version ? "var(--live)" : "var(--gone)";
    const dot = draw("circle", {cx: along(version.revision), cy: 20, r: 4, fill: color});
    dot.append(draw("title", {}, "revision " + version.revision));
    line.append(dot);
  });
  line.append(draw("text", {x: PLOT.left, y: 42}, "revision " + count(data.growth[0].revision)));
  const lastRevision = count(data.growth[data.growth.length - 1].revision);
  line.append(draw("text", {x: PLOT.width - PLOT.right, y: 42, "text-anchor": "end"}, lastRevision));
  const value = make("pre", {});
  const rows = key.versions.map((version) => {
    const shown = version.version ? version.title : "deleted";
    const row = make("tr", {}, make("td", {class: "number"}, count(version.revision)),
      make("td", {class: "number"}, version.version ? count(version.version) : "–"),
      make("td", {class: "number"}, bytes(version.size)), make("td", {}, shown));
    row.addEventListener("click", () => { value.textContent = version.text; });
    return row;
  });
  rows.reverse();
  const head = make("tr", {}, ...["revision", "version", "size"].map((name) => make("th", {class: "number"}, name)),
    make("th", {}, "value"));
  const newest = key.versions[key.versions.length - 1];
  value.textContent = newest ? newest.text : "";
  byId("key").replaceChildren(make("h2", {}, "Key"), make("div", {class: "key", id: "key-name"}, key.name), line,
    value, make("table", {id: "versions"}, make("thead", {}, head), make("tbody", {}, ...rows)),
    ...(key.more ? [make("p", {class: "soft"}, key.versions.length
      ? count(key.more) + " more versions, spread over the whole time, are not in this page"
      : "this page does not have the values of this key")] : []));
}

/* map of sizes: each half of the space gets half of the bytes */

const MAP = {width: 640, height: 260};
const COLORS = ["#2f6fde", "#2a8f6d", "#8a5bd6", "#c2577e", "#4b7f9e", "#7a7f2e", "#b0672f", "#5a6bbf"];

function split(nodes, x, y, width, height, place) {
  if (nodes.length === 1) {
    place(nodes[0], x, y, width, height);
    return;
  }
  const all = nodes.reduce((sum, node) => sum + total(node), 0);
  let at = 0, sum = 0;
  do sum += total(nodes[at++]); while (at < nodes.length - 1 && sum + total(nodes[at]) / 2 < all / 2);
  const share = all ? sum / all : 0.5;
  if (width > height) {
    split(nodes.slice(0, at), x, y, width * share, height, place);
    split(nodes.slice(at), x + width * share, y, width * (1 - share), height, place);
  } else {
    split(nodes.slice(0, at), x, y, width, height * share, place);
    split(nodes.slice(at), x, y + height * share, width, height * (1 - share), place);
  }
}

function showMap(node) {
  const map = draw("svg", {viewBox: `0 0 ${MAP.width} ${MAP.height}`, role: "img", "aria-label": "size by prefix"});
  const nodes = node.children.filter((child) => total(child) > 0).slice(0, 60);
  let color = 0;
  if (nodes.length) split(nodes, 0, 0, MAP.width, MAP.height, (child, x, y, width, height) => {
    const tile = draw("rect", {x, y, width, height, class: "tile", fill: COLORS[color++ % COLORS.length]});
    const about = child.key === undefined ? count(child.keys) + " keys, " : "";
    tile.append(draw("title", {}, `${child.name}: ${about}${bytes(total(child))}`));
    tile.addEventListener("click", () => child.key === undefined ? showMap(child) : showKey(child.key));
    map.append(tile);
    const letters = Math.floor((width - 10) / 7);
    if (height > 18 && letters > 3) {
      const name = child.name.length > letters ? child.name.slice(0, letters - 1) + "…" : child.name;
      map.append(draw("text", {x: x + 5, y: y + 14, class: "tile-name"}, name));
    }
  });
  const up = make("button", {class: "row", type: "button", click: () => showMap(data.tree)},
    node === data.tree ? data.tree.full || "everything" : "◂ " + node.full);
  const share = total(node) ? Math.round(node.garbage * 100 / total(node)) : 0;
  byId("map").replaceChildren(make("h2", {}, "Size by prefix"), up, map,
    make("p", {class: "soft"}, `${bytes(node.live)} live, ${bytes(node.garbage)} superseded (${share} %)`));
}

/* growth */

function showGrowth() {
  const height = 170, bottom = 20;
  const most = Math.max(1, ...data.growth.map((point) => point.kept));
  const up = (value) => height - bottom - value / most * (height - bottom - 12);
  const points = (name) => data.growth.map((point) => `${along(point.revision)},${up(point[name])}`).join(" ");
  const plot = draw("svg", {viewBox: `0 0 ${PLOT.width} ${height}`, role: "img", "aria-label": "growth"});
  for (const [name, color] of [["kept", "var(--garbage)"], ["live", "var(--live)"]]) {
    plot.append(draw("polyline", {points: points(name), fill: "none", stroke: color, "stroke-width": 2}));
  }
  const first = data.growth[0], last = data.growth[data.growth.length - 1];
  plot.append(draw("text", {x: PLOT.left, y: height - 4}, "revision " + count(first.revision)));
  plot.append(draw("text", {x: PLOT.width - PLOT.right, y: height - 4, "text-anchor": "end"}, count(last.revision)));
  plot.append(draw("text", {x: PLOT.left, y: 11}, bytes(most)));
  const legend = make("div", {class: "legend"},
    make("span", {}, make("i", {class: "garbage"}), "all kept versions"),
    make("span", {}, make("i", {class: "live"}), "live keys"));
  byId("growth").replaceChildren(make("h2", {}, "Growth over revisions"), plot, legend);
}

/* top lists */

function showTop(name) {
  for (const tab of byId("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.list === name));
  const rows = data.top[name].map(([index, key, number]) => {
    const row = make("tr", {}, make("td", {class: "key"}, key),
      make("td", {class: "number"}, name === "hottest" ? count(number) : bytes(number)));
    if (index !== null) row.addEventListener("click", () => showKey(index));
    return row;
  });
  byId("top").replaceChildren(make("table", {}, make("tbody", {}, ...rows)));
}
for (const [name, label] of [["largest", "Largest"], ["hottest", "Most changed"], ["wasteful", "Largest past"]]) {
  byId("tabs").append(make("button", {type: "button", "data-list": name, click: () => showTop(name)}, label));
}

search("");
for (let row = byId("tree").querySelector(".row"), rows = 1; row && rows === 1;) {  // a lone branch opens by itself
  if (row.dataset.key !== undefined || row.closest("ul").children.length > 1) break;
  row.click();
  row = row.closest("li").querySelector("ul .row");
}
showMap(data.tree);
showGrowth();
showTop("largest");
if (data.keys.length) showKey(0);
document.body.dataset.ready = "true";
"""
