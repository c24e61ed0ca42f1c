/* One key: its versions, the value of one of them, and what changed between two. */

const CONTEXT_LINES = 3, ROWS_MAX = 4000, LINES_MAX = 50000;

let showingKey = 0;
const isWriting = () => byId("writing") !== null && byId("writing").open;

/* Made anew (isRefresh) it leaves alone what somebody has begun to write meanwhile. */
async function showKey(isRefresh = false) {
  const turn = ++showingKey, id = place.key || source.first;
  const section = byId("key");
  if (id === undefined) {
    renew(section, make("h2", {}, "Key"), make("p", {class: "soft"}, "Choose a key: its value, its versions, and what changed between them are shown here."));
    return;
  }
  let key = null, failure = "";
  try { key = await source.versions(id); } catch (error) { failure = error.message; }
  if (turn !== showingKey || (isRefresh && isWriting())) return;
  if (!key) {
    renew(section, make("h2", {}, "Key"), make("p", {class: "soft", id: "no-key"},
      failure || "There is no such key here, nor any version of it: " + id),
    !failure && source.actions && source.actions({id, versions: []}));
    return;
  }
  const to = versionAt(key.versions, place.to), from = versionAt(key.versions, place.from, to);
  const view = place.view === "changes" ? "changes" : "value";
  const shown = make("div", {id: "shown", role: "tabpanel", "aria-labelledby": "tab-" + view});
  const views = tabs("What to show of the key", [["value", "Value"], ["changes", "What changed"]], view,
    (name) => go({view: name === "value" ? "" : name}));
  renew(section, make("h2", {}, "Key"), make("bdi", {class: "key", id: "key-name"}, key.name),
    make("p", {class: "soft", id: "key-about"}, key.about), timeline(key, from, to, view),
    ...(to ? [views, shown, versionTable(key, from, to)] : []),
    key.note ? make("p", {class: "soft", id: "left-out"}, key.note) : undefined, source.actions && source.actions(key));
  if (!to) return;
  const parts = view === "changes" ? await changes(id, from, to) : await value(id, to);
  if (turn === showingKey) shown.replaceChildren(...parts);
}

/* The version of a revision, or the last one before it; where nothing is asked for, the newest, or the one before "to". */
function versionAt(versions, revision, to) {
  if (revision) return versions.findLast((version) => version.revision <= Number(revision));
  return to ? versions[versions.indexOf(to) - 1] : versions.at(-1);
}

const isDeleted = (version) => !version.version;

/* Who wrote an object, and when, as it tells itself. */
function writtenBy(version) {
  const time = timeText((version.seconds || NaN) * 1000);
  return version.writer || time ? "written" + (version.writer ? " by " + version.writer : "") + (time && " at " + time) : "";
}

/* What a version is; of a text, how it begins, and of one after another, what changed with it. */
function aboutVersion(version, before) {
  if (isDeleted(version)) return "deleted";
  const begin = version.form === "text" ? version.text.slice(0, 60).split("\n")[0] : "";
  const what = begin ? "“" + begin + (begin.length < version.text.length ? "…" : "") + "”" : version.title;
  return !before || isDeleted(before) ? what : begin ? what : `${what}: ${inShort(before, version)}`;
}

/* value */

async function value(id, version) {
  const head = make("p", {class: "soft", id: "value-title"}, "Revision " + count(version.revision) + ": "
    + (isDeleted(version) ? "the key was deleted" : [version.title, bytes(version.size),
      version.lease && "lease " + version.lease, writtenBy(version)].filter((part) => part).join(", ")));
  if (source.when) head.append(" ", whenButton(version));
  if (isDeleted(version)) return [head];
  const shown = await source.value(id, version);
  return [head, make("pre", {id: "value", tabindex: "0", "aria-label": "Value"}, shown.text),
    shown.cut && make("p", {class: "soft"}, "Shown: " + shown.cut)].filter((part) => part);
}

/* Finding out when takes the server a look through its log, so it is asked for. */
function whenButton(version) {
  const button = make("button", {type: "button", class: "link", id: "when", title: "When was this revision written?", click: async () => {
    let told;
    try { const {ms, why} = await source.when(version); told = why || "At " + timeText(ms); } catch (error) { told = error.message; }
    button.replaceWith(make("span", {id: "when-told"}, told));
  }}, "When?");
  return button;
}

function timeText(ms) {
  const date = new Date(ms);
  return isNaN(date) ? "" : date.toISOString().replace("T", " ").replace(/\..*/, " UTC");
}

/* what changed */

const textOf = async (id, version) => version && !isDeleted(version)
  ? source.value(id, version) : {text: "", form: "none", digest: ""};

async function changes(id, from, to) {
  const told = (text) => [make("p", {class: "soft", id: "changes-told"}, text)];
  if (from === to) return told("This is one version. Choose another one to compare it with, below.");
  if (!from && !place.from && to.version > 1) return told("The version before this one is not kept.");
  const [old, now] = await Promise.all([textOf(id, from), textOf(id, to)]);
  if (old.digest === now.digest) return told("The value is the same in both.");
  const [oldLines, nowLines] = sides(old, now);
  if (oldLines.length > LINES_MAX || nowLines.length > LINES_MAX) return told("The values are too long to be compared here.");
  const rows = beside(compared(oldLines, nowLines));
  const gone = rows.filter((row) => !row.same && row.old !== undefined).length;
  const come = rows.filter((row) => !row.same && row.now !== undefined).length;
  if (!gone && !come) {
    return told(old.cut || now.cut ? "Nothing of what is shown differs; what is left out does."
      : "The same content in other bytes: the order of its parts or the layout differs.");
  }
  const cuts = [[from, old], [to, now]].filter(([, shown]) => shown.cut)
    .map(([version, shown]) => `of revision ${count(version.revision)} ${shown.cut}`);
  const about = `${counted(gone, "line")} removed, ${counted(come, "line")} added`
    + (cuts.length ? ". Compared: " + cuts.join("; ") : "");
  return [...told(about), diffTable(rows, oldLines, nowLines, from, to)];
}

function diffTable(rows, oldLines, nowLines, from, to) {
  const sideOf = (version) => !version ? "before: no key" : "revision " + count(version.revision) + (isDeleted(version) ? ": deleted" : "");
  const body = make("tbody", {});
  const isNear = nearby(rows);
  let shown = 0;
  for (let at = 0; at < rows.length;) {
    if (shown++ > ROWS_MAX) {
      body.append(foldRow(`${count(rows.length - at)} more lines, not shown`));
      break;
    }
    if (isNear[at]) { body.append(lineRow(rows[at], oldLines, nowLines)); at++; continue; }
    let end = at;
    while (end < rows.length && !isNear[end]) end++;
    const folded = rows.slice(at, end), path = end < rows.length ? pathOf(nowLines, rows[end].now) : "";
    const unfold = () => fold.replaceWith(...folded.map((row) => lineRow(row, oldLines, nowLines)));
    const fold = foldRow(counted(end - at, "equal line"), path, unfold);
    body.append(fold);
    at = end;
  }
  return make("table", {class: "diff", id: "diff"}, make("caption", {class: "unseen"}, "What changed, side by side"),
    make("thead", {}, make("tr", {}, make("th", {scope: "col"}, sideOf(from)), make("th", {scope: "col"}, sideOf(to)))), body);
}

/* Rows that differ, and some lines around them. */
function nearby(rows) {
  const near = new Array(rows.length).fill(false);
  rows.forEach((row, at) => {
    if (!row.same) near.fill(true, Math.max(at - CONTEXT_LINES, 0), at + CONTEXT_LINES + 1);
  });
  return near;
}

function foldRow(told, path, unfold) {
  const cell = unfold
    ? make("button", {type: "button", click: unfold, title: "Show these lines"}, "⋯ " + told)
    : make("span", {}, "⋯ " + told);
  return make("tr", {class: "fold"}, make("td", {colspan: "2"}, cell, path ? make("bdi", {class: "path"}, path) : ""));
}

function lineRow(row, oldLines, nowLines) {
  if (row.same) return make("tr", {class: "same"}, make("td", {}, nowLines[row.now]), make("td", {}, nowLines[row.now]));
  const old = oldLines[row.old], now = nowLines[row.now];
  const [head, tail] = old !== undefined && now !== undefined ? common(old, now) : [0, 0];
  const whole = head + tail === 0;
  const side = (tag, mark, line) => line === undefined ? make("td", {class: "none"})
    : make("td", {class: tag}, make("span", {class: "unseen"}, mark), line.slice(0, head),
      make(tag, {class: whole ? "whole" : undefined}, line.slice(head, line.length - tail)), line.slice(line.length - tail));
  return make("tr", {class: "other"}, side("del", "− ", old), side("ins", "+ ", now));
}

/* How much two lines have in common at their ends; nothing, if that is little. No character is cut in two. */
function common(old, now) {
  const most = Math.min(old.length, now.length);
  let head = 0, tail = 0;
  while (head < most && old[head] === now[head]) head++;
  while (tail < most - head && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail++;
  if (head && /[\ud800-\udbff]/.test(old[head - 1])) head--;
  if (tail && /[\udc00-\udfff]/.test(old[old.length - tail])) tail--;
  return 3 * (head + tail) >= most ? [head, tail] : [0, 0];
}

/* versions */

function versionTable(key, from, to) {
  const radio = (side, version, chosen, label) => make("input", {type: "radio", name: side,
    id: `${side}-${version.revision}`, checked: version === chosen, "aria-label": `${label} revision ${version.revision}`,
    change: () => go({[side]: String(version.revision), view: "changes"})});
  const rows = key.versions.map((version, at) => make("tr", {"aria-current": version === to ? "true" : undefined},
    make("td", {}, radio("from", version, from, "Compare from")),
    make("td", {}, radio("to", version, to, "Compare to")),
    make("td", {class: "number"}, make("button", {type: "button", class: "link", id: `revision-${version.revision}`,
      click: () => go({to: String(version.revision), from: "", view: ""})}, count(version.revision))),
    make("td", {class: "number"}, isDeleted(version) ? "–" : count(version.version)),
    make("td", {class: "number"}, isDeleted(version) ? "–" : bytes(version.size)),
    make("td", {class: isDeleted(version) ? "what gone" : "what"}, make("bdi", {}, aboutVersion(version, key.versions[at - 1])),
      writtenBy(version) && make("div", {class: "soft"}, writtenBy(version)))));
  rows.reverse();
  const columns = [["from", "", "Compared from this version"], ["to", "", "Compared to this version, or the one whose value is shown"],
    ["revision", "number", "The store's revision that wrote this version"],
    ["version", "number", "How many times the key was written since it was made"], ["size", "number", "Bytes of the value"],
    ["value", "", "What the value was recognized as, and what changed since the version below it"]];
  const head = columns.map(([name, kind, why]) => make("th", {class: kind, scope: "col", title: why}, name));
  return make("div", {class: "scrolls", id: "versions-box"}, make("table", {id: "versions"},
    make("caption", {class: "soft"}, "Versions, newest first. Choose two to compare them, or a revision to see its value."),
    make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

function timeline(key, from, to, view) {
  const [first, last] = source.span(key);
  if (!key.versions.length || first === last) return undefined;
  const width = plotWidth(), along = (revision) => 8 + Math.max(0, revision - first) / (last - first) * (width - 16);
  const line = draw("svg", {viewBox: `0 0 ${width} 44`, role: "img", id: "timeline",
    "aria-label": `${key.versions.length} versions from revision ${first} to ${last}`});
  line.append(draw("line", {x1: 8, x2: width - 8, y1: 20, y2: 20, class: "axis"}));
  for (const version of key.versions) {
    const chosen = version === to || (view === "changes" && version === from);
    const dot = draw("circle", {cx: along(version.revision), cy: 20, r: chosen ? 6 : 4,
      class: isDeleted(version) ? "dot gone" : "dot", click: () => go({to: String(version.revision), from: ""})});
    dot.append(draw("title", {}, "revision " + count(version.revision) + (isDeleted(version) ? ": deleted" : "")));
    line.append(dot);
  }
  line.append(draw("text", {x: 8, y: 42}, "revision " + count(first)));
  line.append(draw("text", {x: width - 8, y: 42, "text-anchor": "end"}, count(last)));
  return line;
}

/* After a choice by hand, a narrow page goes to what was chosen. */
function bringKey() {
  if (isNarrow() && place.key) byId("key").scrollIntoView({block: "start"});
}
whenever(["key", "from", "to", "view"], showKey);
whenever(["key"], () => { const item = mark(); if (item) item.firstChild.scrollIntoView({block: "nearest"}); bringKey(); });
whenever(["find"], showKeys);
