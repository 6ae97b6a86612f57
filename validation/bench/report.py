"""Tables, Markdown and a plot of what run.py measured. Input: the dict that is also written as JSON.

Roofline: the least traffic to memory that a step must cause, over what the triad of the same rounds gave.
    forward        reads u, v, writes u', v'                                      4 words per cell and step
    gradient       forward, storing (4), and reverse: reads u, v, p, q, writes p', q' (6)   10 words
Words that stay in a cache are counted all the same: a fraction above 100 % means that the run lives in cache (small
grids,
or segments recomputed there instead of stored). Recomputation is not counted as traffic: a fraction rates usefulness.
"""

from statistics import median

WORDS = {"forward": 4, "gradient": 10}
HEADERS = (
    "peer", "gradient", "ns/cell/step", "/ ours", "(least-most)",
    "forward ns", "/ ours", "grad/fwd", "roofline", "peak MiB", "error",
)  # fmt: skip


def roofline(row, what="gradient"):
    """Fraction of the triad's bandwidth that useful traffic alone amounts to."""
    times, p = row[what], row["problem"]
    if not times or not row["triad"]:
        return None
    width = 8 if p["dtype"] == "float64" else 4
    return WORDS[what] * width * p["n"] ** 2 * p["steps"] / median(times) / median(row["triad"])


def duration(seconds):
    """For people: three digits and a unit."""
    size, unit = next(((s, u) for s, u in ((1, "s"), (1e-3, "ms")) if seconds >= s), (1e-6, "us"))
    return f"{seconds / size:.3g} {unit}"


def layout(lines, markdown):
    """Lines of cells, the first being the headers, as a Markdown table or in aligned columns."""
    if markdown:
        rule = "|---" + "|--:" * (len(lines[0]) - 1) + "|"
        first, *rest = ["| " + " | ".join(line) + " |" for line in lines]
        return [first, rule, *rest]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(x.rjust(w) if c else x.ljust(w) for c, (x, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]


def _cells(row):
    def show(value, text):
        return "-" if value is None else format(value, text)

    ratio, forward = row["ratio"], row["ratio_forward"]
    gradient, run = median(row["gradient"]), median(row["forward"]) if row["forward"] else None
    return (
        row["label"], duration(gradient), f"{row['ns_per_cell_step']:.2f}",
        show(ratio and ratio[0], ".2f"), f"({ratio[1]:.2f}-{ratio[2]:.2f})" if ratio else "",
        show(row["ns_per_cell_step_forward"], ".2f"), show(forward and forward[0], ".2f"),
        show(run and gradient / run, ".2f"), show(roofline(row), ".0%"), f"{row['peak'] / 2**20:.0f}",
        show(row["error"], ".0e"),
    )  # fmt: skip


def timed(rows):
    return [row for row in rows if row["gradient"] and not row["skipped"]]


def headline(comparison):
    p, threads = comparison["problem"], comparison["threads"]
    triad = comparison["triad"]
    memory = f", triad {triad / 1e9:.1f} GB/s" if triad else ""
    return f"{p['n']} x {p['n']}, {p['steps']} steps, {p['dtype']}, {threads} thread{'s' * (threads > 1)}{memory}"


def table(comparison, markdown=False):
    """One comparison as text: rows by time, the baseline's name in the ratio columns, the skipped ones with their
    reason."""
    baseline = comparison["baseline"]
    headers = [h.replace("ours", baseline) for h in HEADERS]
    rows = sorted(timed(comparison["rows"]), key=lambda row: median(row["gradient"]))
    lines = [headers, *(_cells(row) for row in rows)]
    out = [f"**{headline(comparison)}**", ""] if markdown else [headline(comparison)]
    out += layout(lines, markdown)
    skipped = [row for row in comparison["rows"] if row["skipped"]]
    out += [""] * (markdown and bool(skipped))
    out += [f"{'- ' if markdown else '  '}not timed: {row['label']}: {row['skipped']}" for row in skipped]
    waiting = [w for row in comparison["rows"] for w in row["waiting"]]
    if waiting and median(waiting) > 1.05:
        took = f"{median(waiting):.2f} x their CPU time"
        text = f"the machine was busy: calls took {took}; trust the ratios more than the times"
        out += ["", f"*{text}*"] if markdown else [f"  {text}"]
    return "\n".join(out)


def best(comparison):
    """{name: row} of the fastest variant of each peer; variants of the baseline's own peer stay apart, by their
    labels."""
    own, found = comparison["baseline"].partition(":")[0], {}
    for row in timed(comparison["rows"]):
        name = row["label"] if row["peer"] == own else row["peer"]
        if name not in found or median(row["gradient"]) < median(found[name]["gradient"]):
            found[name] = row
    return found


def summary(results, markdown=False):
    """Time of each peer's best variant over the baseline's, one column a comparison."""
    columns = [(c, best(c)) for c in results["comparisons"]]
    names = list(dict.fromkeys(name for _, found in columns for name in found))
    if not names:
        return ""
    short = [f"{c['problem']['n']}^2 {c['problem']['dtype'].replace('loat', '')} x{c['threads']}" for c, _ in columns]
    lines = [["gradient: best / " + columns[0][0]["baseline"], *short]]
    for name in names:
        ratios = (found[name]["ratio"] if name in found else None for _, found in columns)
        lines.append([name, *(f"{ratio[0]:.2f}" if ratio else "-" for ratio in ratios)])
    return "\n".join(layout(lines, markdown))


def scaling_table(scaling, markdown=False):
    """The baseline alone: over grid size, steps and threads."""
    headers = (
        "over",
        "n",
        "steps",
        "threads",
        "ns/cell/step",
        "forward",
        "relative",
        "triad GB/s",
        "roofline",
        "peak MiB",
    )
    lines = [headers]
    for axis, rows in scaling.items():
        first = next(iter(timed(rows)), None)
        for row in timed(rows):
            p, fraction = row["problem"], roofline(row)
            relative = median(row["gradient"]) / (p["n"] ** 2 * p["steps"])
            relative /= median(first["gradient"]) / (first["problem"]["n"] ** 2 * first["problem"]["steps"])
            forward = row["ns_per_cell_step_forward"]
            lines.append((
                axis, str(p["n"]), str(p["steps"]), str(row["threads"]), f"{row['ns_per_cell_step']:.2f}",
                f"{forward:.2f}" if forward else "-", f"{relative:.2f}",
                f"{median(row['triad']) / 1e9:.1f}" if row["triad"] else "-",
                f"{fraction:.0%}" if fraction else "-", f"{row['peak'] / 2**20:.0f}",
            ))  # fmt: skip
    if len(lines) == 1:
        return ""
    return "\n".join(layout(lines, markdown))


def machine_line(results):
    m = results["machine"]
    return f"{results['date']}, {m['cpu']}, {m['cores']} cores, {m['memory_gib']:.0f} GiB, {m['system']}"


def versions_line(results):
    return ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))


def text(results, markdown=False):
    """The whole report."""
    parts = [machine_line(results), versions_line(results)]
    parts += [table(c, markdown) for c in results["comparisons"]]
    parts.append(summary(results, markdown))
    parts.append(scaling_table(results["scaling"], markdown))
    notes = (
        "Times are medians of rounds, ratios medians of ratios within a round. `grad/fwd`: over the peer's own "
        "forward run. "
        "`roofline`: useful traffic (10 words per cell and step) over the measured triad; above 100 % the run lives "
        "in cache. "
        "`peak`: resident memory above what import and compilation took. `error`: against NumPy in float64, worst "
        "block."
    )
    parts.append(notes if markdown else notes.replace("`", ""))
    return "\n\n".join(part for part in parts if part)


def plot(results, path):
    """Time per cell and step of the best variants over the grid size, and how the baseline scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys((c["problem"]["dtype"], c["threads"]) for c in results["comparisons"]))
    panels = len(kinds) + bool(results["scaling"])
    figure, axes = plt.subplots(
        1, max(1, panels), figsize=(6 * max(1, panels), 4.2), squeeze=False, layout="constrained"
    )
    for ax, (dtype, threads) in zip(axes[0], kinds, strict=False):
        chosen = [c for c in results["comparisons"] if (c["problem"]["dtype"], c["threads"]) == (dtype, threads)]
        lines = {}
        for c in chosen:
            for name, row in best(c).items():
                lines.setdefault(name, []).append((c["problem"]["n"], row["ns_per_cell_step"]))
        for name, points in lines.items():
            mine = name == chosen[0]["baseline"]
            ax.plot(*zip(*sorted(points), strict=True), "o-", label=name, lw=2.5 if mine else 1.2,
                    zorder=3 if mine else 2, color="black" if mine else None)  # fmt: skip
        sizes = sorted({c["problem"]["n"] for c in chosen})
        ax.set(xscale="log", yscale="log", xlabel="grid points per side", ylabel="ns per cell and step",
               title=f"gradient, {dtype}, {threads} thread{'s' * (threads > 1)}")  # fmt: skip
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    if results["scaling"]:
        ax = axes[0][-1]
        for axis, key in (("size", "n"), ("steps", "steps")):
            rows = timed(results["scaling"].get(axis, []))
            over = [row["problem"][key] / rows[0]["problem"][key] for row in rows]
            ax.plot(over, [row["ns_per_cell_step"] for row in rows], "o-", label=f"over {axis}")
        ax.set(xscale="log", xlabel="size or steps, relative to the first", ylabel="ns per cell and step",
               ylim=(0, None),
               title="scaling (flat is linear)")  # fmt: skip
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.suptitle(machine_line(results), fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)
