"""Style of a report: rules of CSS for its page on screens, in the dark and on paper."""

from __future__ import annotations

BODY = """
.deqsmooth { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --faint: #5f5f5f; --rule: #dcdcdc;
  --alarm: #b00020; --alarm-page: #fdecea; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue",
  Arial, sans-serif; color: var(--text); background: var(--page); overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  .deqsmooth { --text: #e6e6e6; --page: #161616; --faint: #a6a6a6; --rule: #3a3a3a; --alarm: #ff8a80;
    --alarm-page: #3a1513; }
}
.deqsmooth h1 { font-size: 1.75rem; line-height: 1.25; font-weight: 650; margin: 0.5rem 0 1rem; }
.deqsmooth h2 { font-size: 1.2rem; font-weight: 650; margin: 3rem 0 0.75rem; }
.deqsmooth h3 { font-size: 1rem; font-weight: 650; margin: 2rem 0 0.5rem; }
.deqsmooth p { max-width: 46rem; margin: 0.6rem 0; }
.deqsmooth .lead { font-size: 1.15rem; line-height: 1.5; max-width: 54rem; }
.deqsmooth .faint, .deqsmooth figcaption, .deqsmooth caption { color: var(--faint); font-size: 0.875rem;
  line-height: 1.45; }
.deqsmooth .alarm { color: var(--alarm); background: var(--alarm-page); border-left: 4px solid; font-weight: 600;
  padding: 0.6rem 0.9rem; max-width: none; }
.deqsmooth code { font: 0.9em ui-monospace, monospace; white-space: nowrap; }
.deqsmooth .wide { overflow-x: auto; margin: 1.25rem 0; }
.deqsmooth table { border-collapse: collapse; border: none; font-variant-numeric: tabular-nums; font-size: 0.9rem;
  margin: 0; min-width: min(100%, 30rem); }
.deqsmooth caption { text-align: left; padding-bottom: 0.5rem; max-width: min(46rem, 100vw - 2rem); }
.deqsmooth tr, .deqsmooth tbody tr:nth-child(odd) { background: none; }
.deqsmooth th, .deqsmooth td { text-align: right; vertical-align: baseline; padding: 0.3rem 0 0.3rem 1.25rem;
  border: none; overflow-wrap: normal; white-space: nowrap; }
.deqsmooth th { font-weight: 500; color: var(--faint); border-bottom: 1px solid var(--rule); }
.deqsmooth tbody tr:last-child td { border-bottom: 1px solid var(--rule); }
.deqsmooth th:first-child, .deqsmooth td:first-child { text-align: left; padding-left: 0; min-width: 8.5rem;
  white-space: normal; overflow-wrap: anywhere; }
.deqsmooth .text td { text-align: left; white-space: normal; min-width: 4.5rem; }
.deqsmooth .text th { text-align: left; }
.deqsmooth figure { margin: 1.25rem 0 1.75rem; }
.deqsmooth figure > picture > img { display: block; width: 100%; height: auto; }
.deqsmooth figcaption { max-width: 46rem; margin-top: 0.4rem; }
.deqsmooth .album { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1rem;
  margin: 0.75rem 0 1.5rem; }
.deqsmooth .album figure { margin: 0; }
.deqsmooth .album img { display: block; width: 100%; max-width: 8rem; aspect-ratio: 1;
  object-fit: contain; object-position: left; }
.deqsmooth .album .small { image-rendering: pixelated; }
.deqsmooth .album figcaption { font-size: 0.8rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
.deqsmooth details { border-top: 1px solid var(--rule); padding: 0.6rem 0; }
.deqsmooth summary { cursor: pointer; }
@media screen and (max-width: 720px) {
  .deqsmooth h1 { font-size: 1.4rem; } .deqsmooth .lead { font-size: 1.05rem; }
  .deqsmooth .album { grid-template-columns: repeat(3, 1fr); }
  .deqsmooth table { font-size: 0.82rem; } .deqsmooth th, .deqsmooth td { padding-left: 0.65rem; }
  .deqsmooth th:first-child, .deqsmooth td:first-child { min-width: 6.5rem; }
}
@media print {
  .deqsmooth { color-scheme: light; --text: #000; --page: #fff; --faint: #444; --rule: #aaa; --alarm: #b00020;
    --alarm-page: #fff; font-size: 9.5pt; line-height: 1.4; }
  .deqsmooth h1 { font-size: 16pt; } .deqsmooth h2 { font-size: 12pt; margin-top: 1.5rem; }
  .deqsmooth .lead { font-size: 11pt; }
  .deqsmooth .faint, .deqsmooth figcaption, .deqsmooth caption { font-size: 8pt; }
  .deqsmooth code { font: 0.9em ui-monospace, monospace; white-space: nowrap; }
.deqsmooth .wide { overflow: visible; } .deqsmooth table { font-size: 7.5pt; }
  .deqsmooth th, .deqsmooth td { padding: 0.12rem 0 0.12rem 0.6rem; white-space: normal; }
  .deqsmooth th:first-child, .deqsmooth td:first-child { min-width: 5rem; }
  .deqsmooth .text td { min-width: 4.8rem; overflow-wrap: anywhere; }
  .deqsmooth details figure > picture > img { max-width: 60% !important; }
  .deqsmooth tr, .deqsmooth figure { break-inside: avoid; }
  .deqsmooth h2, .deqsmooth h3, .deqsmooth caption, .deqsmooth summary { break-after: avoid; }
  .deqsmooth .album { grid-template-columns: repeat(6, 1fr); gap: 0.5rem; }
  .deqsmooth details { border: none; } .deqsmooth summary { list-style: none; font-weight: 600; }
  .deqsmooth details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""
"""Rules of the report itself; every one is below a class, so that a notebook around it keeps its own style."""

WIDTH = 58
"""Width of the page in rem."""
PAGE = """
body { margin: 0; background: #fff; }
body > .deqsmooth { max-width: 58rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
@media (prefers-color-scheme: dark) { body { background: #161616; } }
@media print { body, body > .deqsmooth { max-width: none; padding: 0; background: #fff; } }
"""
"""Rules of a page of its own, which also has margins, and lines that are not too long."""
