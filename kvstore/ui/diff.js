/* What differs between two texts.

   compared(old, now)   [{kind: "=", "-" or "+", old: index, now: index}], in order, of two lists of lines
   beside(steps)        the same as rows of two sides
   arranged(text)       pretty JSON with its members in order and without commas, so that only data differs
   pathOf(lines, at)    what a line of YAML or JSON lies in, by its indentation
   sides(old, now)      the lines of two values as the page gets them, laid out alike
   inShort(old, now)    where two values differ, in a few words */

const STEPS_MAX = 1500;

function compared(old, now) {
  let head = 0, oldEnd = old.length, nowEnd = now.length;
  while (head < oldEnd && head < nowEnd && old[head] === now[head]) head++;
  while (oldEnd > head && nowEnd > head && old[oldEnd - 1] === now[nowEnd - 1]) { oldEnd--; nowEnd--; }
  const left = old.slice(head, oldEnd), right = now.slice(head, nowEnd);
  const middle = (left.length && right.length && shortest(left, right)) || replaced(left, right);
  const steps = [];
  for (let at = 0; at < head; at++) steps.push({kind: "=", old: at, now: at});
  for (const step of middle) steps.push({kind: step.kind, old: step.old + head, now: step.now + head});
  for (let at = oldEnd; at < old.length; at++) steps.push({kind: "=", old: at, now: at - oldEnd + nowEnd});
  return steps;
}

/* Of what is too different to be aligned, all of the one and then all of the other. */
function replaced(old, now) {
  return [...old.map((_, at) => ({kind: "-", old: at, now: 0})),
    ...now.map((_, at) => ({kind: "+", old: old.length, now: at}))];
}

/* Myers, "An O(ND) difference algorithm": the furthest place on each diagonal, for each number of changes. */
function shortest(old, now) {
  const most = Math.min(old.length + now.length, STEPS_MAX), offset = most + 1;
  const furthest = new Int32Array(2 * most + 3), trace = [];
  for (let changes = 0; changes <= most; changes++) {
    trace.push(furthest.slice(offset - changes - 1, offset + changes + 2));
    for (let diagonal = -changes; diagonal <= changes; diagonal += 2) {
      const down = diagonal === -changes
        || (diagonal !== changes && furthest[offset + diagonal - 1] < furthest[offset + diagonal + 1]);
      let x = down ? furthest[offset + diagonal + 1] : furthest[offset + diagonal - 1] + 1;
      while (x < old.length && x - diagonal < now.length && old[x] === now[x - diagonal]) x++;
      furthest[offset + diagonal] = x;
      if (x >= old.length && x - diagonal >= now.length) return walkedBack(trace, old.length, now.length);
    }
  }
  return null;
}

function walkedBack(trace, x, y) {
  const steps = [];
  for (let changes = trace.length - 1; changes >= 0; changes--) {
    const furthest = trace[changes], offset = changes + 1, diagonal = x - y;
    const down = diagonal === -changes
      || (diagonal !== changes && furthest[offset + diagonal - 1] < furthest[offset + diagonal + 1]);
    const before = down ? diagonal + 1 : diagonal - 1;
    const startX = changes ? furthest[offset + before] : 0, startY = changes ? startX - before : 0;
    while (x > startX && y > startY) steps.push({kind: "=", old: --x, now: --y});
    if (changes && down) steps.push({kind: "+", old: x, now: --y});
    else if (changes) steps.push({kind: "-", old: --x, now: y});
  }
  return steps.reverse();
}

function beside(steps) {
  const rows = [];
  for (let at = 0; at < steps.length;) {
    if (steps[at].kind === "=") { rows.push({same: true, old: steps[at].old, now: steps[at++].now}); continue; }
    const gone = [], come = [];
    for (; at < steps.length && steps[at].kind !== "="; at++) {
      if (steps[at].kind === "-") gone.push(steps[at].old); else come.push(steps[at].now);
    }
    for (let row = 0; row < Math.max(gone.length, come.length); row++) {
      rows.push({same: false, old: gone[row], now: come[row]});
    }
  }
  return rows;
}

const depthOf = (line) => line.length - line.trimStart().length;

function arranged(text) {
  const lines = text.split("\n");
  let at = 0;
  function members(depth, isObject) {
    const found = [];
    while (at < lines.length && depthOf(lines[at]) === depth && !/^\s*[\]}]/.test(lines[at])) {
      const head = lines[at++], own = [head.replace(/,$/, "")];
      if (at < lines.length && depthOf(lines[at]) > depth) {
        own.push(...members(depthOf(lines[at]), head.endsWith("{")));
        if (at < lines.length && depthOf(lines[at]) === depth) own.push(lines[at++].replace(/,$/, ""));
      }
      found.push(own);
    }
    if (isObject) found.sort((one, other) => one[0] < other[0] ? -1 : 1);
    return found.flat();
  }
  return [...members(0, false), ...lines.slice(at)];
}

/* Items of a list stand as deep as the name of the list, in YAML as it is written here, and yet below it. */
const isItem = (line) => /^\s*- /.test(line);
const levelOf = (line) => depthOf(line) + (isItem(line) ? 0.5 : 0);

function pathOf(lines, at) {
  const path = [];
  for (let level = levelOf(lines[at]); at >= 0 && level > 0; at--) {
    if (!lines[at].trim() || levelOf(lines[at]) >= level) continue;
    level = levelOf(lines[at]);
    if (!isItem(lines[at])) path.unshift(lines[at].trim().replace(/:?\s*[[{]?$/, "").replace(/^"(.*)"$/, "$1"));
  }
  return path.filter((name) => name).join(" › ");
}

function sides(old, now) {
  const isJson = old.form === "json" && now.form === "json" && !old.cut && !now.cut;
  return [old, now].map((shown) => !shown.text ? [] : isJson ? arranged(shown.text) : shown.text.split("\n"));
}

/* Parts of Kubernetes objects that every writer changes: named only if nothing else changed. */
const NOT_NEWS = /^metadata › (managedFields|resourceVersion|generation)/;
const NAMES_MAX = 3;

function inShort(old, now) {
  if (old.digest === now.digest) return "the same value";
  const [oldLines, nowLines] = sides(old, now);
  const steps = compared(oldLines, nowLines).filter((step) => step.kind !== "=");
  if (!steps.length) return old.cut || now.cut ? "other content, in what is not shown" : "the same content";
  if (![old.form, now.form].every((form) => form === "json" || form === "yaml")) {
    const come = steps.filter((step) => step.kind === "+").length;
    return now.form === "bytes" ? "other bytes" : `+${come} −${steps.length - come} lines`;
  }
  const nameOf = (step) => step.kind === "+" ? partName(nowLines, step.now) : partName(oldLines, step.old);
  const names = [...new Set(steps.map(nameOf))], news = names.filter((name) => !NOT_NEWS.test(name));
  const told = news.length ? news : names;
  return told.slice(0, NAMES_MAX).join(", ") + (told.length > NAMES_MAX ? `, … (${told.length} in all)` : "");
}

function partName(lines, at) {
  const own = /^\s*(?:- )?"?([\w./-]+)"?:/.exec(lines[at]), path = pathOf(lines, at);
  return own ? (path ? path + " › " : "") + own[1] : path || lines[at].trim().slice(0, 40);
}
