# SPDX-License-Identifier: GPL-2.0-only
"""Turns results into text: lines for the terminal, a markdown table and an SVG chart. The
results are the dictionary that run writes as JSON; nothing is measured here."""

import math
import statistics
from xml.sax.saxutils import escape

from systems import BASELINE


def summarise(ratios):
    ordered = sorted(ratios)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def duration(nanoseconds):
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def number(value):
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def spread(row):
    return f"{number(row['min'])}–{number(row['max'])}"


def to_baseline(workload):
    """The program measured relative to the build it is compared with, round by round; None where one is missing."""
    ours, baseline = (workload["systems"].get(s, {}).get("ratios") for s in ("stagefs", BASELINE))
    return summarise([a / b for a, b in zip(ours, baseline)]) if ours and baseline else None


def workload_lines(name, workload):
    """What the terminal shows after one workload."""
    yield f"{name}: {workload['title']}"
    if name == "memory":
        for system, row in workload["systems"].items():
            if "error" in row:
                yield f"  {system:<18} failed: {row['error']}"
            else:
                yield (f"  {system:<18} {row['bytes_per_file']:8.0f} B per file, "
                       f"{row['descriptors']:+d} descriptors for {workload['files']} files")
        return
    native = workload["systems"]["native"]
    yield (f"  {'native':<18} {duration(native['ns'])}, last to first of a round "
           f"{number(native['median'])}x ({spread(native)})")
    for system, row in workload["systems"].items():
        if "error" in row:
            yield f"  {system:<18} failed: {row['error']}"
        elif system != "native":
            yield (f"  {system:<18} {number(row['median']):>6}x  ({spread(row)})  "
                   f"{duration(row['ns'])}")
    compared = to_baseline(workload)
    if compared:
        yield f"  {'stagefs/baseline':<18} {number(compared['median']):>6}x  ({spread(compared)})"


def systems_of(results):
    """All systems but the plain directory, in the order in which they were measured."""
    names = []
    for workload in results["workloads"].values():
        names += [s for s in workload["systems"] if s not in names and s != "native"]
    return names


def markdown(results):
    systems = systems_of(results)
    compared = ["stagefs / baseline"] * (BASELINE in systems)
    lines = ["| work | native | " + " | ".join(systems + compared) + " |",
             "|---" * (len(systems + compared) + 2) + "|"]
    for name, workload in results["workloads"].items():
        cells = []
        for system in systems:
            row = workload["systems"].get(system, {"error": ""})
            if "error" in row:
                cells.append("failed" if row["error"] else "–")
            elif name == "memory":
                cells.append(f"{row['bytes_per_file']:.0f} B, {row['descriptors']:+d} fd")
            else:
                cells.append(f"{number(row['median'])} ({spread(row)})")
        if compared:
            row = to_baseline(workload)
            cells.append(f"{number(row['median'])} ({spread(row)})" if row else "–")
        native = "–" if name == "memory" else duration(workload["systems"]["native"]["ns"])
        lines.append(f"| {workload['title']} | {native} | " + " | ".join(cells) + " |")
    machine = results["machine"]
    lines += ["", f"Ratios to native of the same round: median (least–most) of {results['rounds']} rounds; "
                  f"Linux {machine['kernel']}, {machine['processors']} processors, {machine['filesystem']}"
                  + (", a quick run: not for comparison." if results["quick"] else ".")]
    return "\n".join(lines)


# ---- the chart ----

COLOURS = ["#0b62a4", "#6fb1e0", "#d9822b", "#8e44ad", "#2e8b57", "#c0392b", "#7f8c8d", "#b8860b"]
LEFT, WIDTH, ROW, TOP_SPACE = 330, 960, 15, 70


class Scale:
    """Ratios on a logarithmic axis."""

    def __init__(self, least, most):
        self.least, self.most = math.log10(least), math.log10(most)

    def x(self, ratio):
        part = (math.log10(ratio) - self.least) / (self.most - self.least)
        return LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - 90)


def axis(scale, most, bottom):
    for tick in (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500):
        if not 10 ** scale.least <= tick <= most:
            continue
        x = scale.x(tick)
        style = 'stroke="#333" stroke-width="1.5"' if tick == 1 else 'stroke="#ddd"'
        yield f'<line x1="{x:.1f}" y1="{TOP_SPACE - 8}" x2="{x:.1f}" y2="{bottom}" {style}/>'
        label = f"{tick:g}×" if tick != 1 else "native"
        yield f'<text x="{x:.1f}" y="{TOP_SPACE - 12}" text-anchor="middle" fill="#555">{label}</text>'


def bars(workload, systems, scale, y):
    for system in systems:
        row = workload["systems"].get(system)
        if row is None:
            continue
        colour = COLOURS[systems.index(system) % len(COLOURS)]
        if "error" in row:
            yield f'<text x="{scale.x(1) + 6:.1f}" y="{y + 10}" fill="{colour}">{escape(system)}: failed</text>'
        else:
            low, mid, high = (scale.x(row[k]) for k in ("min", "median", "max"))
            start, length = min(scale.x(1), mid), abs(mid - scale.x(1))
            yield (f'<rect x="{start:.1f}" y="{y + 2}" width="{max(length, 1):.1f}" height="{ROW - 5}" '
                   f'fill="{colour}" fill-opacity="0.75"><title>{escape(system)}: {number(row["median"])} '
                   f'({spread(row)})</title></rect>')
            yield (f'<line x1="{low:.1f}" y1="{y + 7}" x2="{high:.1f}" y2="{y + 7}" stroke="#000" '
                   f'stroke-opacity="0.6"/>')
            yield (f'<text x="{max(high, mid, scale.x(1)) + 5:.1f}" y="{y + 11}" fill="#222">'
                   f'{number(row["median"])}</text>')
        y += ROW


def legend(systems):
    x = 12
    for i, system in enumerate(systems):
        yield f'<rect x="{x}" y="30" width="11" height="11" fill="{COLOURS[i % len(COLOURS)]}"/>'
        yield f'<text x="{x + 15}" y="40">{escape(system)}</text>'
        x += 34 + 7 * len(system)


def chart(results):
    """An SVG picture: one group of bars for each timed workload; the thin line is least to most. A baseline is of
    interest to who changes the program, and is left out."""
    systems = [s for s in systems_of(results) if s != BASELINE]
    workloads = {n: w for n, w in results["workloads"].items() if n != "memory"}
    ratios = [row[k] for w in workloads.values() for s, row in w["systems"].items()
              if s in systems and "error" not in row for k in ("min", "max")]
    least, most = min(ratios + [0.9]) * 0.95, max(ratios + [2.0]) * 1.1
    scale, y, body = Scale(least, most), TOP_SPACE, []
    for workload in workloads.values():
        rows = [s for s in systems if s in workload["systems"]]
        body.append(f'<text x="{LEFT - 12}" y="{y + ROW * len(rows) / 2 + 4:.0f}" text-anchor="end">'
                    f'{escape(workload["title"])}</text>')
        body += bars(workload, systems, scale, y)
        y += ROW * len(rows) + 12
    machine = results["machine"]
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 30}" '
            f'viewBox="0 0 {WIDTH} {y + 30}" font-family="sans-serif" font-size="11">',
            f'<rect width="{WIDTH}" height="{y + 30}" fill="#fff"/>',
            '<text x="12" y="18" font-size="14" font-weight="bold">Time relative to the plain directory '
            '(less is better)</text>']
    foot = (f'<text x="12" y="{y + 18}" fill="#555">Median of {results["rounds"]} rounds; the line is least to '
            f'most. Linux {escape(machine["kernel"])}, {machine["processors"]} processors, '
            f'{escape(machine["filesystem"])}.</text>')
    return "\n".join(head + list(legend(systems)) + list(axis(scale, most, y)) + body + [foot, "</svg>"]) + "\n"
