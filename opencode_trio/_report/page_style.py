"""How a report looks in a browser, by day and by night."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2430; --soft: #5d6878; --line: #e3e7ed; --shade: #f5f7fa;
  --step: #bcd3f8; --step-edge: #7fa8ea; --tool: #14907c; --ask: #f0a31c; --retry: #9660e8;
  --bad: #d3302f; --bad-step: #f6bdb9; --sub: #eef1f6; --sub-edge: #b3bccb;
  --queue: #d3d9e2; --starting: #c3cad5; --running: #9aa5b5; --good: #1d8549;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --ink: #e6eaf0; --soft: #98a3b3; --line: #2a313c; --shade: #1b212a;
    --step: #2b4a7d; --step-edge: #4a76bd; --tool: #2fb8a0; --ask: #e8a733; --retry: #a67cf0;
    --bad: #f0605c; --bad-step: #6e2d2f; --sub: #1f2630; --sub-edge: #4b5666;
    --queue: #39434f; --starting: #4a5463; --running: #66717f; --good: #4cc07d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 14px/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1rem; margin: 0 0 .4rem; }
.when { color: var(--soft); margin: .1rem 0 1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 0 0 1rem; }
.tiles div { background: var(--shade); border-radius: 6px; padding: .45rem .8rem; }
.tiles dt { color: var(--soft); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.tiles .bad dd { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; list-style: none; padding: 0;
  margin: 0 0 1rem; color: var(--soft); font-size: .85rem; }
.legend svg { width: 26px; height: 14px; vertical-align: -2px; margin-right: .4rem; }
.failures { border-left: 4px solid var(--bad); padding: .1rem .9rem; margin: 0 0 1rem; }
.failures ul { margin: 0; padding: 0; list-style: none; max-height: 14rem; overflow: auto; }
.failures li { overflow-wrap: anywhere; }
.failures a { color: inherit; font-weight: 600; }
.failures q { quotes: none; color: var(--bad); }
.row {
  display: grid; grid-template-columns: minmax(8rem, 15rem) minmax(12rem, 1fr) 5.2rem 5.2rem 4.2rem;
  column-gap: .7rem; align-items: center; border-top: 1px solid var(--line); padding: 2px 0;
}
.row:target { background: var(--shade); }
.head {
  position: sticky; top: 0; z-index: 2; border: 0; background: var(--paper); color: var(--soft);
  font-size: .8rem; border-bottom: 1px solid var(--running); padding-top: .4rem;
}
.foot { font-weight: 600; border-top: 1px solid var(--running); }
.num { text-align: right; white-space: nowrap; font-size: .85rem; }
.who { min-width: 0; }
.who b, .who small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.who b { font-weight: 600; }
.who small { color: var(--soft); font-size: .78rem; }
.who i { font-style: normal; display: inline-block; width: 1.3em; color: var(--soft); }
.completed .who i { color: var(--good); }
.failed .who i, .failed .who small { color: var(--bad); }
.track {
  position: relative; align-self: stretch; display: flex; align-items: center;
  background-image: linear-gradient(to right, var(--line) 1px, transparent 1px);
  background-size: var(--tick) 100%;
}
.axis { background: none; height: 1.3rem; }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis div { position: absolute; inset: 0; }
.axis span:first-child { transform: none; }
.chart { --tick: var(--tick-1); }
.track svg { display: block; width: 100%; overflow: visible; }
.zoom { text-align: right; color: var(--soft); font-size: .85rem; margin: 0; }
.zoom label { margin-left: .6rem; }
.zoom input { margin: 0 .2rem 0 0; vertical-align: -1px; }
.at-4, .at-16 { display: none; }
body:has(#zoom-4:checked) .chart { --zoom: 4; --tick: var(--tick-4); }
body:has(#zoom-16:checked) .chart { --zoom: 16; --tick: var(--tick-16); }
body:has(.wide:checked) .at-1 { display: none; }
body:has(#zoom-4:checked) .at-4, body:has(#zoom-16:checked) .at-16 { display: block; }
body:has(.wide:checked) .chart { overflow: auto; max-height: 95vh; }
body:has(.wide:checked) .row { width: calc(100% * var(--zoom)); }
body:has(.wide:checked) .who { position: sticky; left: 0; z-index: 1; background: var(--paper); }
.dense .who small { display: none; }
.dense .row { padding: 0; font-size: .85rem; }
rect { vector-effect: non-scaling-stroke; }
rect:hover { filter: brightness(1.15); stroke: var(--ink); stroke-width: 1px; }
rect.waiting { fill: var(--queue); }
rect.running { fill: var(--running); }
rect.starting { fill: var(--starting); }
rect.subagent { fill: var(--sub); stroke: var(--sub-edge); stroke-width: 1px; }
rect.step { fill: var(--step); stroke: var(--step-edge); stroke-width: .75px; }
rect.step.failed { fill: var(--bad-step); stroke: var(--bad); }
rect.tool { fill: var(--tool); stroke: var(--paper); stroke-width: .5px; }
rect.tool.failed, rect.error { fill: var(--bad); }
rect.error { stroke: var(--bad); stroke-width: 2px; }
rect.ask { fill: var(--ask); }
rect.retry { fill: var(--retry); }
@media (max-width: 62rem) {
  .row { grid-template-columns: minmax(7rem, 11rem) minmax(10rem, 1fr) 4.8rem; }
  .num ~ .num, .axis span:nth-child(even) { display: none; }
}
@media print { .head { position: static; } body { padding: 0; } }
"""
"""No `<`, `>` or `&`: so the page is well-formed XML, too."""
