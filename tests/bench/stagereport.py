# SPDX-License-Identifier: GPL-2.0-only
"""Tables of the staging benchmark's results, which are the dictionary that it writes as JSON."""

import os

from report import duration, number

COLUMNS = {
    "direct": "source, cold",
    "again": "source, again",
    "unstaged": "stagefs, stage=none",
    "first": "staged, first read",
    "hot": "staged, again",
    "staging": "staging itself",
    "ready": "read after that",
}
LEGEND = """\
Medians; in parentheses how many times as fast as the cold source. Each column but "again" begins with a source of
which nothing is cached. *stage=none*: through the mount, without staging. *first read*: the read that has the file
staged. *again*: the same once more. *staging itself*: `stagectl stage` of the files, until it is done, on slow
sources whole (`--mode prefetch`); *read after that*: their first read by a program."""


def times(row, base):
    factor = base["ns"] / row["ns"] if row["ns"] else 0
    return f"{number(factor)}×"


def cell(row, base, plain):
    if row is None:
        return "–"
    if "error" in row:
        return "failed"
    if plain or base is None or "error" in base:
        return duration(row["ns"])
    return f"{duration(row['ns'])} ({times(row, base)})"


def lines(workload):
    """What the terminal shows after one workload."""
    yield workload["title"]
    base = workload["cells"].get("direct")
    for column, title in COLUMNS.items():
        row = workload["cells"].get(column)
        if row is None:
            continue
        text = f"failed: {row['error']}" if "error" in row else \
            f"{cell(row, base, column == 'direct')}  [{duration(row['min'])} to {duration(row['max'])}]"
        yield f"  {title:<20} {text}"


def table(source):
    workloads = source["workloads"].values()
    columns = [c for c in COLUMNS if any(c in w["cells"] for w in workloads)]
    yield "| work | " + " | ".join(COLUMNS[c] for c in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for workload in workloads:
        cells = workload["cells"]
        yield "| " + workload["title"] + " | " + " | ".join(
            cell(cells.get(c), cells.get("direct"), c in ("direct", "staging")) for c in columns) + " |"


def many_lines(many):
    yield f"| {many['files']} small files, 1 ms for each operation | time | |"
    yield "|---|---|---|"
    base = many["rows"].get("direct")
    for row in many["rows"].values():
        text = row.get("error") or f"{duration(row['ns'])} | {times(row, base) if base and 'ns' in base else ''}"
        yield f"| {row['title']} | {text} |"


def markdown(results):
    machine = results["machine"]
    out = [LEGEND, ""]
    for source in results["sources"].values():
        out += [f"### {source['title'][0].upper()}{source['title'][1:]}", ""]
        out += list(table(source)) if source["workloads"] else [f"Left out: {source['left_out']}."]
        out.append("")
    if results.get("many"):
        out += ["### Many files at once", ""] + list(many_lines(results["many"])) + [""]
    out.append(f"Linux {machine['kernel']}, {machine['processors']} processors; {results['rounds']} rounds"
               + (", a quick run: not for comparison." if results["quick"] else "."))
    return "\n".join(out)


def fill(path, mark, text):
    """Puts the text between the marks <!-- MARK --> and <!-- /MARK --> of a document."""
    with open(path, encoding="utf-8") as f:
        before, rest = f.read().split(f"<!-- {mark} -->\n", maxsplit=1)
    after = rest.split(f"<!-- /{mark} -->", maxsplit=1)[1]
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")
    os.replace(path + ".new", path)
