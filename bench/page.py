# SPDX-License-Identifier: Apache-2.0
"""report.html: one file with its pictures inside, no script, nothing fetched; for large screens and phones, light and dark."""

from html import escape

import bars
import report

STYLE = """
:root { color-scheme: light dark; --soft: #59636e; --line: #d5dae0; --mark: #fff4d6; --ground: #ffffff; --text: #1f2328 }
@media (prefers-color-scheme: dark) { :root { --soft: #9198a1; --line: #30363d; --mark: #3a2f10; --ground: #0d1117;
  --text: #e6edf3 } }
body { font: 15px/1.45 system-ui, -apple-system, 'DejaVu Sans', sans-serif; margin: 0 auto; padding: 1rem; max-width: 70rem;
  background: var(--ground); color: var(--text) }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem }
th, td { padding: .18rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; text-align: left }
.right { text-align: right } .soft { color: var(--soft) } tr.floor { font-style: italic }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem } dt { color: var(--soft) } dd { margin: 0 }
.mark { background: var(--mark); padding: .4rem .7rem; border-radius: 6px }
pre { overflow-x: auto; font-size: .8rem; border-left: 3px solid var(--line); padding-left: .7rem }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } .pictures > div { flex: 1 1 20rem; min-width: 0; max-width: 42rem }
svg { width: 100%; height: auto; display: block }
"""


def table_row(values, tag="td", kind=""):
    cells = "".join(f'<{tag}{" class=right" if i in report.RIGHT else ""}>{escape(value)}</{tag}>'
                    for i, value in enumerate(values))
    return f"<tr{f' class={kind}' if kind else ''}>{cells}</tr>"


def table(rows):
    lines = [table_row(report.HEAD, "th")]
    lines += [table_row(report.cells(row), kind="floor" if row.is_floor else "") for row in rows]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def note(line, last_lines):
    said = "".join(f"{escape(one)}\n" for one in last_lines)
    return f'<p class="mark">{escape(line)}</p>' + (f"<pre>{said}</pre>" if said else "")


def section(scenario, harness, pictures):
    parts = [f'<h2 id="{escape(scenario["name"])}">{escape(report.heading(scenario))}</h2>',
             table(report.rows(scenario, harness))]
    parts += [note(line, said) for line, said in report.notes(scenario)]
    parts += [f'<p class="soft">{escape(line)}</p>' for line in report.closing_lines(scenario)]
    return "\n".join([*parts, '<div class="pictures">', *(f"<div>{picture}</div>" for picture in pictures), "</div>"])


def bars_section(rows):
    if not rows:
        return []
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in bars.HEAD) + "</tr>"]
    lines += [f"<tr{' class=mark' if row[-1].startswith('missed') else ''}>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>"
              for row in rows]
    return ['<h2 id="bars">Bars</h2>', '<div class="wide"><table>', *lines, "</table></div>"]


def html(result, pictures):
    """`pictures`: {scenario's name: [SVG]}."""
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1"><title>shunt bench</title>',
             f"<style>{STYLE}</style></head><body><h1>shunt bench</h1>"]
    if report.incomplete(result):
        parts.append(f'<p class="mark"><b>{escape(report.incomplete(result))}</b></p>')
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts(result))
    parts += [f"<dl>{facts}</dl>", f'<p class="soft">{escape(report.CAPTION)}</p>']
    harness = result.get("harness", {})
    parts += [section(scenario, harness, pictures.get(scenario["name"], [])) for scenario in result["scenarios"]]
    parts += bars_section(bars.rows(result))
    return "\n".join([*parts, "</body></html>\n"])
