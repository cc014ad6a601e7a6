# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0
"""Renders a readiness report as one HTML page that needs nothing else, and in a few lines.

The page works without scripts; a script adds the search. Names from hosts are hostile: each is escaped.
"""

from __future__ import annotations

from html import escape

from ansible_collections.venvguard.venvguard.plugins.module_utils.readiness import (
    NOT_READY,
    READY,
    UNAFFECTED,
    UNKNOWN,
)

READINESS = {
    READY: "ready",
    NOT_READY: "not ready",
    UNAFFECTED: "not affected",
    UNKNOWN: "not tried",
}

PROOF = {
    "rehearsed": "built and checked",
    "smoke": "checked as it is",
    "resolved": "the index has a wheel of each distribution",
}

KINDS = {
    "no-wheel": "no file for the new Python",
    "build-failed": "does not build",
    "different": "another version is installed",
    "import": "cannot be imported",
    "script": "a program does not start",
    "removed-module": "needs a removed module of Python",
    "requires-python": "does not support the new Python",
    "lost-library": "loses a library of the system",
    "path": "a file of the system names its old path",
    "embedded": "runs inside a program of Debian",
    "interpreter": "the interpreter fails",
    "obstacle": "cannot be rebuilt",
    "policy": "its policy blocks the upgrade",
}

REMEDIES = {
    "pin": "stays on its Python",
    "rebuild": "is rebuilt",
    "refresh": "is refreshed",
    "restart": "its services restart",
    "restore": "is restored",
    "impossible": "cannot be repaired",
    "none": "nothing",
}

# How many venvs a terminal shows; the page shows all.
LINES_LIMIT = 20

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --good: #1b6e3c; --dull: #777; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #81c995; --dull: #aaa; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .dull { color: var(--dull); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; padding: 0; list-style: none; }
.tiles li { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; min-width: 6rem; }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.2; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 600; } .number { text-align: right; } col.number { width: 5rem; }
.narrow { width: 8.5rem; } .wide { width: 33%; }
.part { content-visibility: auto; contain-intrinsic-size: auto 600rem; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
summary { cursor: pointer; margin: 1rem 0 .5rem; } input { font: inherit; padding: .3rem .5rem; width: 20rem; }
@media print { input, label { display: none; } .part { content-visibility: visible; } }
"""

# Hides the rows without the text that was typed. A row's text is read once.
SCRIPT = """
const search = document.querySelector('input');
search.closest('p').hidden = false;
let parts, timer;
function read() {
  return Array.from(document.querySelectorAll('.part'), part => [part,
    Array.from(part.querySelectorAll('tr'), row => [row, row.textContent.toLowerCase()])]);
}
function show() {
  parts ??= read();
  const text = search.value.toLowerCase();
  for (const [part, rows] of parts) {
    part.hidden = true;
    for (const [row, words] of rows) {
      row.hidden = !words.includes(text);
      if (!row.hidden) part.hidden = false;
    }
  }
  if (text) document.querySelectorAll('details').forEach(one => { one.open = true; });
}
search.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(show, 150); });
"""

# The rows of a part, which a browser lays out when it is scrolled into view. Ten thousand at once take it seconds.
PART = 200

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(report):
    """The page, as text."""
    release = report["release"]
    title = "Python upgrade to %s" % release if release else "The pending upgrade of Python"
    shown = [row for row in report["venvs"] if row["readiness"] in (NOT_READY, UNKNOWN)]
    others = [row for row in report["venvs"] if row["readiness"] not in (NOT_READY, UNKNOWN)]
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        '<meta http-equiv="Content-Security-Policy" content="%s">\n' % escape(POLICY),
        '<meta name="viewport" content="width=device-width">\n',
        "<title>%s</title>\n<style>%s</style>\n</head>\n<body>\n" % (escape(title), STYLE),
        "<h1>%s</h1>\n" % escape(title),
        '<p class="dull">%s</p>\n' % escape(report["at"] or ""),
        "<p>%s</p>\n" % escape(summary(report["totals"])),
        tiles(report["totals"]),
        blockers(report["blockers"]),
        '<p hidden><label>Search <input type="search" placeholder="host, venv, path, distribution"></label></p>\n',
        venvs("Virtualenvs that need attention", shown),
        folded("Virtualenvs that are ready or not affected", others),
        hosts(report["hosts"]),
        "<script>%s</script>\n</body>\n</html>\n" % SCRIPT,
    ]
    return "".join(parts)


def count(number, noun):
    """`1 host`, `2 hosts`."""
    return "%d %s%s" % (number, noun, "" if number == 1 else "s")


def summary(totals):
    """The report in one or two sentences."""
    affected = totals["venvs"] - totals["unaffected"]
    text = "The upgrade changes the Python of %d of %s." % (affected, count(totals["venvs"], "virtualenv"))
    if totals["not_ready"]:
        text += " %d %s not ready, on %s." % (
            totals["not_ready"],
            "is" if totals["not_ready"] == 1 else "are",
            count(totals["hosts_not_ready"], "host"),
        )
    elif affected and not totals["unknown"]:
        text += " All of them are ready."
    if totals["unknown"]:
        text += " %d not tried yet." % totals["unknown"]
    if totals["hosts_failed"]:
        text += " %s gave no answer." % count(totals["hosts_failed"], "host")
    return text


def in_lines(report):
    """The report as the controller prints it: the sum, and the first venvs that are not ready."""
    rows = [row for row in report["venvs"] if row["readiness"] == NOT_READY]
    lines = [summary(report["totals"])]
    lines += ["%s: %s: %s" % (row["host"], row["name"], "; ".join(obstacles(row))) for row in rows[:LINES_LIMIT]]
    if len(rows) > LINES_LIMIT:
        lines.append("The report names %d more." % (len(rows) - LINES_LIMIT))
    return lines


def tiles(totals):
    shown = (
        (totals["ready"], "ready"),
        (totals["not_ready"], "not ready"),
        (totals["unknown"], "not tried"),
        (totals["unaffected"], "not affected"),
        (totals["blocks"], "block the upgrade"),
        (totals["hosts"], "hosts"),
        (totals["hosts_failed"], "hosts without an answer"),
        (totals["hosts_held"], "hosts that hold Python"),
    )
    items = ["<li><b>%d</b>%s</li>\n" % (number, escape(words)) for number, words in shown]
    return '<ul class="tiles">\n%s</ul>\n' % "".join(items)


# A number, a few words, or sentences.
COLUMNS = {"#": "number", "-": "narrow", "+": "wide"}


def table(heads, rows):
    """A table; its cells are HTML. The first character of a heading may say what its column has, as in COLUMNS."""
    return "<table>\n%s%s</table>\n" % (head(heads), body(rows))


def head(heads):
    cells = "".join(
        "<th%s>%s</th>" % (' class="number"' if name[0] == "#" else "", escape(name.lstrip("".join(COLUMNS))))
        for name in heads
    )
    return "%s<thead><tr>%s</tr></thead>\n" % (columns(heads), cells)


def columns(heads):
    kinds = [COLUMNS.get(name[0]) for name in heads]
    return "<colgroup>%s</colgroup>\n" % "".join('<col class="%s">' % kind if kind else "<col>" for kind in kinds)


def body(rows):
    return "<tbody>\n%s</tbody>\n" % "".join("<tr>%s</tr>\n" % "".join(row) for row in rows)


def parted(heads, rows):
    """A long table, as one with the headings and one for each part of the rows."""
    parts = [rows[begin : begin + PART] for begin in range(0, len(rows), PART)]
    tables = ('<div class="part"><table>\n%s%s</table></div>\n' % (columns(heads), body(part)) for part in parts)
    return "<table>\n%s</table>\n%s" % (head(heads), "".join(tables))


def cell(text):
    return "<td>%s</td>" % escape(str(text))


def number(value):
    return '<td class="number">%d</td>' % value


def blockers(found):
    if not found:
        return ""
    heads = ["What is in the way", "#Venvs", "#Hosts", "Why", "Versions", "+Example"]
    rows = [
        [
            cell(one["distribution"] or "the virtualenv itself"),
            number(one["venvs"]),
            number(one["hosts"]),
            cell(", ".join(KINDS.get(kind, kind) for kind in one["kinds"])),
            cell("; ".join(version(need) for need in one["versions"][:4]) or "-"),
            cell(bounded(one["example"])),
        ]
        for one in found
    ]
    return "<h2>What blocks most</h2>\n" + table(heads, rows)


def version(need):
    """`2.9.5 → 2.9.10`, if a newer version works."""
    text = need["version"] or "-"
    return "%s → %s" % (text, need["works_from"]) if need["works_from"] else text


def bounded(text):
    """The first line of a detail."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= 300 else line[:299] + "…"


def why(row):
    """What is in the way of a venv, as HTML."""
    return "<br>".join(map(escape, obstacles(row)))


def obstacles(row):
    """What is in the way of a venv, in lines of text."""
    lines = [described(finding) for finding in row["findings"]]
    reasons = map(bounded, row["reasons"])
    return lines + [reason for reason in reasons if reason not in lines]


def described(finding):
    """A finding in a line. Most details name the distribution and the version that works themselves."""
    name, text = finding["distribution"], bounded(finding["detail"])
    if name and not text.startswith(name):
        text = "%s: %s" % (" ".join(word for word in (name, finding["version"]) if word), text)
    if finding["works_from"] and finding["works_from"] not in text:
        text += " (%s works)" % finding["works_from"]
    return text


def readiness(row):
    style = {READY: "good", NOT_READY: "bad"}.get(row["readiness"], "dull")
    words = READINESS[row["readiness"]] + (", blocks apt" if row["blocks"] else "")
    proof = PROOF.get(row["proof"])
    return '<td><span class="%s">%s</span>%s</td>' % (style, words, escape(" (%s)" % proof if proof else ""))


def venv_row(row):
    python = row["python"] or "-"
    if row["python_after"]:
        python += " → " + row["python_after"]
    state = "" if row["state"] == "healthy" else '<br><span class="bad">%s now</span>' % escape(row["state"])
    return [
        cell(row["host"]),
        '<td>%s<br><span class="dull">%s</span></td>' % (escape(row["name"]), escape(row["path"])),
        cell(python),
        readiness(row),
        cell(REMEDIES.get(row["remedy"], row["remedy"]) if row["remedy"] else "-"),
        "<td>%s%s</td>" % (why(row), state),
    ]


VENV_HEADS = ["Host", "Virtualenv", "-Python", "-Readiness", "-The upgrade", "+Why"]


def venvs(title, rows):
    if not rows:
        return ""
    heading = "<h2>%s (%d)</h2>\n" % (escape(title), len(rows))
    return heading + parted(VENV_HEADS, [venv_row(row) for row in rows])


def folded(title, rows):
    if not rows:
        return ""
    shown = parted(VENV_HEADS, [venv_row(row) for row in rows])
    return "<details>\n<summary>%s (%d)</summary>\n%s</details>\n" % (escape(title), len(rows), shown)


def hosts(found):
    """The hosts about which the report says less than about the others."""
    rows = []
    for host in found:
        remarks = []
        if host["error"] is not None:
            remarks.append(bounded(host["error"]))
        if not host["known"]:
            remarks.append("apt has no recent package lists, so its pending upgrade is not known")
        if host["hold"] is not None:
            until = host["hold"]["until"]
            remarks.append(
                "holds Python since %s%s (by %s%s)"
                % (
                    host["hold"]["since"][:10],
                    " until " + until[:10] if until else "",
                    host["hold"]["by"],
                    ": " + host["hold"]["reason"] if host["hold"]["reason"] else "",
                )
            )
        rows += [[cell(host["host"]), cell(remark)] for remark in remarks]
    if not rows:
        return ""
    return "<h2>Hosts</h2>\n" + table(["Host", "+Remark"], rows)
