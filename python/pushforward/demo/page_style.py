# SPDX-License-Identifier: Apache-2.0
"""The look of the report; its colours are those of the figures."""

STYLE = """
:root { --ink: #1f2733; --muted: #5b6573; --rule: #d9dee5; --page: #ffffff; --tile: #f3f5f8;
  --accent: #2563c9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf2; --muted: #a3adba; --rule: #39424f;
  --page: #171c24; --tile: #202732; --accent: #6ea3f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0 0 .5rem; font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; }
h2 { margin: 0 0 .75rem; font-size: 1.4rem; line-height: 1.3; letter-spacing: -.01em; }
p { max-width: 44rem; margin: 0 0 .9rem; }
header p { color: var(--muted); font-size: 1.08rem; }
section { margin-top: 2.75rem; padding-top: 2rem; border-top: 1px solid var(--rule); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem;
  margin: 1.75rem 0 0; padding: 0; list-style: none; }
.tiles li { padding: .9rem 1.1rem; border-radius: .6rem; background: var(--tile); }
.tiles b { display: block; color: var(--accent); font-size: 1.7rem; line-height: 1.25; }
.tiles span { color: var(--muted); font-size: .88rem; }
.figures { display: grid; gap: 1.25rem; margin: 1.25rem 0; }
.clouds { grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.grids { grid-template-columns: repeat(auto-fit, minmax(17.5rem, 1fr)); }
.charts { grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
.rates, .path { max-width: 44rem; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: .35rem; }
figcaption { margin-top: .4rem; color: var(--muted); font-size: .86rem; line-height: 1.45; }
.clouds figcaption { text-align: center; }
.table { margin: 1.5rem 0; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; color: var(--muted); font-size: .86rem; text-align: left; }
th, td { padding: .5rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
th:first-child { padding-left: 0; text-align: left; }
thead th { color: var(--muted); font-weight: 500; }
tbody th { font-weight: 600; }
dl { margin: 0; font-size: .92rem; }
dl div { display: flex; justify-content: space-between; gap: 1.5rem; padding: .35rem 0;
  border-bottom: 1px solid var(--rule); }
dt { color: var(--muted); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
"""
