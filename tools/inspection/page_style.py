"""How the page looks."""

STYLE = """
:root { --ink: #1c2430; --soft: #667085; --line: #d8dee8; --paper: #fff; --ground: #f5f7fa;
        --live: #2f6fde; --garbage: #e08a2e; --gone: #c23b3b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #98a2b3; --line: #333c4a; --paper: #1a212c; --ground: #11161e; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
header { padding: 16px 24px 4px; }
h1 { font-size: 18px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 0 0 8px; color: var(--soft); font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 24px; color: var(--soft); }
.facts b { color: var(--ink); font-weight: 600; }
main { display: grid; grid-template-columns: minmax(320px, 5fr) 7fr; gap: 16px; padding: 16px 24px; }
@media (max-width: 900px) { main { grid-template-columns: 1fr; } }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px;
          min-width: 0; }
.column { display: flex; flex-direction: column; gap: 16px; min-width: 0; }
#tree { max-height: 70vh; overflow: auto; font-size: 13px; }
#tree ul { list-style: none; margin: 0; padding-left: 14px; border-left: 1px solid var(--line); }
#tree > ul { padding-left: 0; border-left: 0; }
.row { display: flex; gap: 8px; align-items: baseline; width: 100%; padding: 1px 4px; border: 0; border-radius: 4px;
       background: none; color: inherit; font: inherit; text-align: left; cursor: pointer; }
.row:hover, .row:focus-visible, .row.chosen { background: var(--ground); }
.row .name { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
             font-family: ui-monospace, monospace; }
.row .number { color: var(--soft); font-variant-numeric: tabular-nums; white-space: nowrap; }
.mark { width: 1em; color: var(--soft); }
input { width: 100%; padding: 6px 8px; margin-bottom: 8px; border: 1px solid var(--line); border-radius: 6px;
        background: var(--ground); color: inherit; font: inherit; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 2px 8px 2px 0; vertical-align: top; }
td:last-child:not(.number), td.key { width: 100%; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.key { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 8px 0 0; padding: 8px; max-height: 320px; overflow: auto; background: var(--ground); border-radius: 6px;
      white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
.tile { cursor: pointer; stroke: var(--paper); stroke-width: 1; }
.tile-name { fill: #fff; pointer-events: none; }
.legend { display: flex; gap: 16px; color: var(--soft); font-size: 12px; margin-top: 4px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.live { background: var(--live); } .garbage { background: var(--garbage); } .gone { background: var(--gone); }
.soft { color: var(--soft); }
.tabs button { border: 0; background: none; color: var(--soft); font: inherit; font-weight: 600; padding: 0 12px 8px 0;
               cursor: pointer; }
.tabs button[aria-selected="true"] { color: var(--ink); }
"""
