/* A live page: it asks its server, and watches it. */

let token = "", about = {title: "kvstore", facts: [], revision: 0, first: 1, spans: [], users: false};
const FOUND_MAX = 500, EVENTS_MAX = 300;

/* asking */

async function ask(path, message, signal) {
  const headers = {"X-Kvstore-UI": "1"};
  if (token) headers.Authorization = token;
  const options = {headers, signal, credentials: "omit", cache: "no-store"};
  if (message !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(message);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  let told = {};
  try { told = await answer.json(); } catch { /* not the server's own answer */ }
  if (answer.status === 401 || told.code === 16 || /user name is empty/.test(told.message || "")) showLogin(true);
  throw new Error(told.message || answer.status + " " + answer.statusText);
}

async function read(name, query, signal) {
  const parts = Object.entries(query || {}).filter(([, value]) => value !== undefined && value !== "")
    .map(([part, value]) => part + "=" + encodeURIComponent(value));
  return (await ask("/ui/api/" + name + (parts.length ? "?" + parts.join("&") : ""), undefined, signal)).json();
}

const call = async (path, message) => (await ask("/v3/" + path, message || {})).json();

/* bytes: in base64 on the wire, percent-encoded in addresses, text for people */

const fromBase64 = (text) => Uint8Array.from(atob(text || ""), (letter) => letter.charCodeAt(0));
const sizeOf = (text) => text ? text.length / 4 * 3 - /=*$/.exec(text)[0].length : 0;
const toBase64 = (array) => btoa(String.fromCharCode(...array));
const hex = (byte) => byte.toString(16).padStart(2, "0");
const idOf = (array) => [...array].map((byte) => /[A-Za-z0-9_.~\-/!'()*]/.test(String.fromCharCode(byte)) && byte < 128
  ? String.fromCharCode(byte) : "%" + hex(byte).toUpperCase()).join("");

function bytesOf(id) {
  const found = [];
  for (let at = 0; at < id.length; at++) {
    if (id[at] === "%") { found.push(parseInt(id.slice(at + 1, at + 3), 16)); at += 2; }
    else found.push(...new TextEncoder().encode(id[at]));
  }
  return Uint8Array.from(found);
}

function nameOf(array) {
  try {
    const text = new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(array);
    return text.replace(/(?! )[\p{C}\p{Z}\\]/gu, (letter) => "\\u" + letter.codePointAt(0).toString(16).padStart(4, "0"));
  } catch {
    return [...array].map((byte) => byte > 31 && byte < 127 && byte !== 92 ? String.fromCharCode(byte) : "\\x" + hex(byte)).join("");
  }
}

/* what the page shows of the store */

let asked = new AbortController();
const slow = new Set(); // prefixes whose branches take long to count: not done again with each change

const source = {
  first: undefined,

  async children(node, after, isAgain) {
    const prefix = node ? node.prefix : "", counts = isAgain && slow.has(prefix) ? "no" : "", begun = performance.now();
    const page = await read("children", {prefix, after, counts});
    if (performance.now() - begun > 100) slow.add(prefix);
    return {nodes: page.nodes, after: page.after};
  },

  async find(words, show) {
    asked.abort();
    asked = new AbortController();
    let after, found = 0, looked = 0, isFirst = true;
    do {
      let page;
      try { page = await read("find", {words: words.join(" "), after}, asked.signal); } catch (error) {
        if (error.name !== "AbortError") show([], error.message, isFirst);
        return;
      }
      found += page.nodes.length;
      looked += page.looked;
      after = found < FOUND_MAX ? page.after : undefined;
      const told = after !== undefined ? `${count(found)} found in ${counted(looked, "key")}, searching …`
        : page.after !== undefined ? `the first ${count(found)}, in ${counted(looked, "key")}` : `${count(found)} of ${counted(looked, "key")}`;
      if (!show(page.nodes, told, isFirst)) return;
      isFirst = false;
    } while (after !== undefined);
  },

  async versions(id) {
    const found = await read("versions", {key: id, before: place.before});
    if (!found) return null;
    if (found.more && place.from && Number(place.from) < found.versions[0].revision) {
      const past = await read("versions", {key: id, before: String(Number(place.from) + 1)});
      if (past) found.versions.unshift(past.versions.at(-1));
    }
    const newest = found.versions.at(-1);
    found.id = id;
    found.about = (isDeleted(newest) ? "Deleted" : bytes(newest.size)) + (newest.lease ? ", attached to lease " + newest.lease : "");
    found.note = found.more ? `${count(found.more)} older versions are kept.` : "";
    return found;
  },

  async value(id, version) {
    return version.cut ? read("value", {key: id, revision: version.revision}) : version;
  },

  when: (version) => read("when", {revision: version.revision}),

  span(key) { return [key.versions[0].revision, Math.max(about.revision, key.versions.at(-1).revision)]; },

  actions(key) {
    const parts = [];
    const step = (id, title, before) => parts.push(make("button", {type: "button", class: "button", id,
      click: () => go({before, from: "", to: ""})}, title));
    if (key.more) step("older", "Older versions", String(key.versions[0].revision));
    if (place.before) step("newest", "Newest versions", "");
    if (data.writes && !place.before) parts.push(writing(key));
    return parts.length ? make("div", {}, ...parts) : undefined;
  },
};
whenever(["before"], showKey);

/* writing, where it is allowed */

function writing(key) {
  const newest = key.versions.at(-1), exists = newest && !isDeleted(newest);
  const isText = exists && !newest.cut && ["text", "json"].includes(newest.form);
  const told = make("p", {class: "wrong", role: "alert", id: "write-told"});
  const field = make("textarea", {id: "new-value", rows: "4", spellcheck: "false"});
  field.value = isText ? newest.text : "";
  const write = (name, message) => async (event) => {
    event.preventDefault();
    if (name === "delete" && !confirm("Delete this key?")) return;
    try {
      const answer = await (await ask("/ui/api/" + name, {key: key.id, revision: exists ? newest.revision : 0, ...message()})).json();
      if (!answer.written) told.textContent = "Nothing was written: the key has changed since it was shown.";
      else { go({from: "", to: ""}); await showKey(); }
    } catch (error) { told.textContent = error.message; }
  };
  return make("details", {id: "writing"}, make("summary", {}, newest ? "Change it" : "Make it"),
    make("form", {submit: write("put", () => ({value: field.value}))}, make("label", {}, "New value (text)", field),
      make("button", {type: "submit", id: "put"}, "Put"),
      exists && make("button", {type: "button", id: "delete", click: write("delete", () => ({}))}, "Delete")), told);
}

/* A key that is not there yet is gone to as any other. */
function newKeyForm() {
  const name = make("input", {id: "new-key", required: true, spellcheck: "false"});
  const submit = (event) => {
    event.preventDefault();
    go({key: idOf(new TextEncoder().encode(name.value)), before: "", from: "", to: ""});
  };
  return make("form", {submit}, make("label", {}, "Another key", name), make("button", {type: "submit", id: "go-to-key"}, "Go to it"));
}

/* who is asking: the token is in this variable, and nowhere else */

function showLogin(isNeeded) {
  let section = byId("login");
  if (!isNeeded) { if (section) section.remove(); return; }
  token = "";
  if (section) return;
  section = make("section", {id: "login", "aria-label": "Log in"});
  const told = make("p", {class: "wrong", role: "alert"});
  const name = make("input", {id: "user", autocomplete: "username", required: true});
  const password = make("input", {id: "password", type: "password", autocomplete: "current-password"});
  const submit = async (event) => {
    event.preventDefault();
    try {
      token = "";
      const answer = await fetch("/v3/auth/authenticate", {method: "POST", credentials: "omit",
        body: JSON.stringify({name: name.value, password: password.value})});
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.message);
      token = found.token;
      password.value = "";
      await begin();
    } catch (error) { told.textContent = error.message; }
  };
  section.append(make("h2", {}, "Log in"), make("form", {submit}, make("label", {}, "User", name),
    make("label", {}, "Password", password), make("button", {type: "submit"}, "Log in")), told);
  byId("panels").prepend(section);
}

/* what happens now */

let watching = new AbortController(), events = [], isPaused = false;

async function watchOn(from) {
  watching.abort();
  const stop = watching = new AbortController();
  while (!stop.signal.aborted) {
    try {
      const creations = about.spans.map(([start, end]) => JSON.stringify({create_request: {
        key: toBase64(start.length ? start : [0]), range_end: toBase64(end === null ? [0] : end), start_revision: String(from)}}));
      if (!creations.length) return;
      const headers = token ? {Authorization: token} : {};
      const answer = await fetch("/v3/watch", {method: "POST", body: creations.join(""), headers, signal: stop.signal, credentials: "omit"});
      if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
      status("watching");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = "";;) {
        const {done, value} = await reader.read();
        if (done) break;
        text += value;
        const lines = text.split("\n");
        text = lines.pop();
        for (const line of lines.filter((each) => each)) {
          const said = JSON.parse(line);
          if (said.error) throw new Error(said.error.message);
          const result = said.result;
          if (result.compact_revision) from = Number(result.compact_revision);
          if (result.canceled) throw new Error(result.cancel_reason || "the watch was ended");
          if (result.events) { from = Number(result.header.revision) + 1; take(result.events, Number(result.header.revision)); }
        }
      }
      throw new Error("the connection has ended");
    } catch (error) {
      if (stop.signal.aborted) return;
      status("not watching: " + error.message);
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

let watchStatus = "";
function status(text) { watchStatus = text; if (byId("watch-status")) byId("watch-status").textContent = text; }

function take(found, revision) {
  about.revision = Math.max(about.revision, revision);
  for (const {type, kv} of found) {
    const key = fromBase64(kv.key);
    events.unshift({id: idOf(key), name: nameOf(key), isDelete: type === "DELETE", revision: Number(kv.mod_revision),
      isNew: kv.version === "1", size: sizeOf(kv.value)});
  }
  events.length = Math.min(events.length, EVENTS_MAX);
  if (events.slice(0, found.length).some((event) => event.id === place.key)) later("key", () => isWriting() ? undefined : showKey(true));
  later("tree", refreshTree);
  if ((place.tab || "events") === "events" && !isPaused) later("events", showTab);
}

/* Once for all that comes within a moment, and never again before the server has had four times as long to rest. */
const due = new Map();
function later(name, what) {
  const one = due.get(name) || {timer: 0, took: 0, isRunning: false, again: false};
  due.set(name, one);
  if (one.timer) { one.again = one.isRunning; return; }
  one.timer = setTimeout(async () => {
    const begun = performance.now();
    one.isRunning = true;
    try { await what(); } finally {
      Object.assign(one, {timer: 0, isRunning: false, took: performance.now() - begun});
      if (one.again) { one.again = false; later(name, what); }
    }
  }, Math.max(200, 4 * one.took));
}

/* Branches that are open get what is new in them: made anew, unless there is more than is shown. */
async function refreshTree() {
  about = {...about, ...await read("about").catch(() => ({}))};
  showFacts(about.title, about.facts);
  if (place.find) return;
  for (const list of [tree, ...tree.querySelectorAll("ul")]) {
    const item = list === tree ? null : list.closest("li");
    if (!list.isConnected || (item && !isOpen(item)) || list.querySelector(":scope > .more")) continue;
    const page = await source.children(item && item.node, "", true).catch(() => null);
    if (!page || !list.isConnected) continue;
    const old = new Map([...list.children].map((each) => [nodeId(each.node), each]));
    const had = document.activeElement;
    const items = page.nodes.map((node) => {
      const known = old.get(nodeId(node));
      if (!known) return treeItem(node);
      tell(known, node);
      return known;
    });
    const isSame = items.length === list.children.length && items.every((each, at) => each === list.children[at]);
    if (!isSame) list.replaceChildren(...items);
    if (had !== document.activeElement && had.isConnected) had.focus({preventScroll: true});
    if (page.after !== undefined) await addMore(list, item && item.node, page.after);
  }
  mark();
}
const nodeId = (node) => node.branch ? "b " + node.prefix : "k " + node.key;
async function addMore(list, node, after) {
  const more = treeItem({name: "Show more", more: () => addChildren(list, node, after)});
  more.classList.add("more");
  list.append(more);
}

/* tabs */

const TABS = [["events", "Live"], ["compare", "Two revisions"], ["leases", "Leases"], ["users", "Users"], ["metrics", "Metrics"]];
let showingTab = 0;

async function showTab() {
  const turn = ++showingTab, name = TABS.some(([each]) => each === place.tab) ? place.tab : "events";
  let parts;
  try { parts = await views[name](); } catch (error) { parts = [make("p", {class: "wrong"}, error.message)]; }
  if (turn !== showingTab) return;
  renew(byId("tabs"), tabs("About the store", TABS, name, (tab) => go({tab: tab === "events" ? "" : tab})),
    make("div", {role: "tabpanel", "aria-labelledby": "tab-" + name, id: "tab"}, ...parts));
}

const keyButton = (id, name, more, own) => make("button", {type: "button", class: "link", id: own, click: () => go({key: id, before: "", from: "", to: "", ...more})},
  make("bdi", {}, name));

function table(id, columns, rows, empty) {
  if (!rows.length) return make("p", {class: "soft", id}, empty);
  return make("div", {class: "scrolls"}, make("table", {id}, make("thead", {}, make("tr", {},
    ...columns.map(([title, kind, why]) => make("th", {scope: "col", class: kind, title: why}, title)))),
  make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell, at) => make("td", {class: columns[at][1]}, cell)))))));
}

const views = {
  async events() {
    const rows = events.map((event) => [count(event.revision), event.isDelete ? "deleted" : event.isNew ? "made" : "put",
      keyButton(event.id, event.name, {to: String(event.revision), view: event.isNew ? "" : "changes"}, `event-${event.revision}-${event.id}`), event.isDelete ? "–" : bytes(event.size)]);
    const pause = make("button", {type: "button", class: "button", id: "pause", "aria-pressed": String(isPaused),
      click: () => { isPaused = !isPaused; showTab(); }}, isPaused ? "Go on" : "Pause");
    return [make("p", {class: "soft"}, "Changes since the page was opened: ", make("span", {id: "watch-status", role: "status"}, watchStatus), " ", pause),
      table("events", [["revision", "number"], ["", ""], ["key", "key"], ["size", "number"]], rows, "Nothing has changed yet.")];
  },

  async compare() {
    const older = place.older || String(about.first), newer = place.newer || String(about.revision);
    const field = (id, title, value) => make("label", {}, title, make("input", {id, inputmode: "numeric", pattern: "[0-9]+", required: true, value}));
    const form = make("form", {submit: (event) => {
      event.preventDefault();
      go({older: byId("older").value, newer: byId("newer").value, under: byId("under").value});
    }}, field("older", "From revision", older), field("newer", "To revision", newer),
    make("label", {}, "Keys that begin with", make("input", {id: "under", value: place.under || ""})),
    make("button", {type: "submit", id: "compare"}, "Compare"));
    if (!place.older) return [form];
    const rows = [], prefix = idOf(new TextEncoder().encode(place.under || ""));
    const shown = make("div", {id: "compared"});
    const showMore = async (after) => {
      const page = await read("differences", {older, newer, prefix, after});
      for (const row of page.rows) {
        const [before, now] = row.sizes;
        rows.push([row.kind, keyButton(row.key, row.name, {from: older, to: newer, view: "changes", before: String(Number(newer) + 1)}),
          (before === null ? "–" : bytes(before)) + " → " + (now === null ? "–" : bytes(now))]);
      }
      const more = page.after && make("button", {type: "button", class: "button", id: "more-differences",
        click: () => showMore(page.after).catch((error) => more.replaceWith(make("p", {class: "wrong"}, error.message)))}, "Show more");
      renew(shown, make("p", {class: "soft", id: "differ"}, page.after ? `The first ${counted(rows.length, "key")} that differ`
        : `${counted(rows.length, "key")} ${rows.length === 1 ? "differs" : "differ"}`),
      table("differences", [["", ""], ["key", "key"], ["size", "number"]], rows, "Nothing differs."), more);
    };
    await showMore();
    return [form, shown];
  },

  async leases() {
    const found = (await call("lease/leases")).leases || [];
    const shown = await Promise.all(found.slice(0, 100).map(({ID}) => call("lease/timetolive", {ID, keys: true})
      .catch((error) => ({ID, error: error.message}))));
    const rows = shown.map((lease) => [BigInt.asUintN(64, BigInt(lease.ID)).toString(16), lease.error || (lease.TTL || "0") + " s",
      (lease.grantedTTL || "–") + " s", make("span", {}, ...(lease.keys || []).slice(0, 20).flatMap((key) => {
        const array = fromBase64(key);
        return [keyButton(idOf(array), nameOf(array)), " "];
      }), (lease.keys || []).length > 20 ? `and ${count(lease.keys.length - 20)} more` : "")]);
    return [make("p", {class: "soft"}, counted(found.length, "lease") + (found.length > 100 ? ", the first 100 shown" : "")),
      table("leases", [["id", "number", "In hexadecimal"], ["left", "number", "Until it ends, unless it is kept alive"],
        ["granted", "number", "How long it lives each time it is kept alive"], ["keys", "key", "Deleted when it ends"]], rows, "There are no leases.")];
  },

  async users() {
    const [users, roles] = await Promise.all([call("auth/user/list"), call("auth/role/list")]);
    const of = await Promise.all((users.users || []).map((name) => call("auth/user/get", {name})));
    const permissions = await Promise.all((roles.roles || []).map((role) => call("auth/role/get", {role})));
    const spanName = ({key, range_end: end}) => {
      const start = fromBase64(key), last = fromBase64(end);
      if (!end) return nameOf(start);
      if (last.length === 1 && last[0] === 0) return start.length <= 1 && !start[0] ? "every key" : nameOf(start) + " and all after it";
      const isPrefix = start.length === last.length && start.slice(0, -1).every((byte, at) => byte === last[at]) && start.at(-1) + 1 === last.at(-1);
      return isPrefix ? nameOf(start) + "…" : nameOf(start) + " up to " + nameOf(last);
    };
    const may = ({permType}) => ({WRITE: "write", READWRITE: "read and write"})[permType] || "read";
    return [make("p", {class: "soft", id: "auth"}, about.users ? "Users count: each request says whose it is."
      : "Users do not count: whoever reaches the server may do everything."),
    table("user-list", [["user", ""], ["roles", "what"]], (users.users || []).map((name, at) => [name, (of[at].roles || []).join(", ")]), "There are no users."),
    table("role-list", [["role", ""], ["may", "what"]], (roles.roles || []).map((name, at) => [name,
      (permissions[at].perm || []).map((each) => may(each) + " " + spanName(each)).join("; ") || (name === "root" ? "do everything" : "")]), "There are no roles.")];
  },

  async metrics() {
    later("sample", sample);
    return [make("p", {class: "soft"}, "Taken every two seconds while this is open. Totals are shown as they grow in a second."),
      make("div", {class: "plots", id: "plots"}, ...plots())];
  },
};

/* metrics: a few of /metrics, as small plots */

const PLOTS = [
  {title: "Writes in a second", name: "etcd_mvcc_put_total", grows: true, why: "Keys put"},
  {title: "Reads in a second", name: "etcd_mvcc_range_total", grows: true, why: "Ranges answered"},
  {title: "Calls in a second", name: "grpc_server_handled_total", grows: true, why: "Calls answered, of every kind"},
  {title: "Watches", name: "etcd_debugging_mvcc_watcher_total", why: "Watches that are open"},
  {title: "Size", name: "etcd_mvcc_db_total_size_in_bytes", show: bytes, why: "Bytes of the store's file"},
  {title: "In use", name: "etcd_mvcc_db_total_size_in_use_in_bytes", show: bytes, why: "Bytes of it that hold something"},
  {title: "Memory", name: "process_resident_memory_bytes", show: bytes, why: "Of the server's process"},
  {title: "Processor", name: "process_cpu_seconds_total", grows: true, show: (share) => Math.round(share * 100) + " %", why: "Of one core"},
];
const SAMPLES_MAX = 150, SAMPLE_MS = 2000;
const samples = [];
let sampling = 0;

async function sample() {
  clearTimeout(sampling);
  if (place.tab !== "metrics") return;
  try {
    const sums = new Map();
    for (const line of (await (await ask("/metrics")).text()).split("\n")) {
      const found = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)$/.exec(line);
      if (found) sums.set(found[1], (sums.get(found[1]) || 0) + Number(found[2]));
    }
    samples.push({at: performance.now() / 1000, sums});
    if (samples.length > SAMPLES_MAX) samples.shift();
    if (byId("plots")) byId("plots").replaceChildren(...plots());
  } catch (error) {
    if (byId("plots")) byId("plots").replaceChildren(make("p", {class: "wrong"}, error.message));
  }
  sampling = setTimeout(sample, SAMPLE_MS);
}

/* Those that the server has: some take an option of the store. */
function plots() {
  const last = samples.at(-1);
  return PLOTS.filter(({name}) => !last || last.sums.has(name)).map((one) => plot(one));
}

function series({name, grows}) {
  const found = [];
  samples.forEach((now, at) => {
    if (!now.sums.has(name)) return;
    if (!grows) { found.push(now.sums.get(name)); return; }
    const before = samples[at - 1];
    if (before) found.push(Math.max(0, (now.sums.get(name) - before.sums.get(name)) / (now.at - before.at)));
  });
  return found;
}

function plot(one) {
  const numbers = series(one), last = numbers.at(-1), most = Math.max(...numbers, 1e-9), width = 240, height = 60;
  const show = one.show || ((number) => number < 10 ? String(Math.round(number * 10) / 10) : count(Math.round(number)));
  const told = last === undefined ? "–" : show(last);
  const points = numbers.map((number, at) => `${width - (numbers.length - 1 - at) * width / SAMPLES_MAX},${height - 2 - number / most * (height - 6)}`);
  return make("figure", {title: one.why}, make("figcaption", {class: "soft"}, one.title + " ", make("b", {}, told)),
    draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${one.title}: ${told}; at most ${numbers.length ? show(most) : "–"}`},
      draw("line", {x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "axis"}),
      draw("polyline", {points: points.join(" "), class: "curve live"})));
}

panel("tabs", "About the store");
whenever(["tab", "older", "newer", "under"], showTab);

async function begin() {
  about = await read("about");
  showFacts(about.title, about.facts);
  showLogin(about.users && !token);
  events = [];
  watchOn(about.revision + 1);
  await Promise.all([showKeys(), showKey(), showTab()]);
}

(async () => {
  if (data.writes) tree.after(newKeyForm());
  place = placeOf(location.hash);
  showFacts(about.title, []);
  try { await begin(); } catch (error) {
    if (!byId("login")) byId("panels").prepend(make("p", {class: "wrong", role: "alert"}, error.message));
    await showKey();
  }
  document.body.dataset.ready = "true";
})();
