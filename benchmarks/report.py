"""
The report: everything that a run found, in Markdown, with plots.

All of the text that says how something went is made from the figures.
"""

from __future__ import annotations

__all__ = ["render", "target_table"]

import datetime
import statistics
from collections.abc import Callable, Sequence

from benchmarks.fleet import LOADS as FLEET_LOADS
from benchmarks.load import BIG, GIANT, SMALL, VARIED
from benchmarks.long import DIRECTIONS, PATHS
from benchmarks.model import QUIET, Cell, Profile, Round, Run, median
from benchmarks.plot import Bar, bars, lines
from benchmarks.targets import BASE, FIGURES, TARGETS, Outcome, judge

PLOTS = "performance"  # the directory of the plots, beside the report
_BUSY = 0.85  # of a core, from which on a process is what limits a row


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A table; the first columns are set to the left, the others to the right."""
    return [
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * left + "---:|" * (len(heads) - left),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _bound(outcome: Outcome) -> str:
    return f"{'≥' if outcome.figure.more else '≤'} {outcome.target.bound:g}"


def _verdict(outcome: Outcome) -> str:
    if outcome.ratio is None:
        return "not measured"
    return "met" if outcome.met else "**missed**"


def target_table(run: Run) -> list[str]:
    """The table of targets, met or missed."""
    rows = []
    for outcome in (judge(run, target) for target in TARGETS):
        figure = outcome.figure
        if outcome.ratio is None or outcome.ours is None or outcome.envoys is None:
            values = [figure.text(outcome.ours) if outcome.ours is not None else "-", "-", "-"]
        else:
            values = [
                figure.text(outcome.ours),
                figure.text(outcome.envoys),
                f"{outcome.ratio:.2f} ({outcome.low:.2f}-{outcome.high:.2f})",
            ]
        rows.append([outcome.target.work, figure.title, *values, _bound(outcome), _verdict(outcome)])
    return _table(
        ["work", "figure", "ours", "Envoy's pair", "ratio (rounds)", "target", ""],
        rows,
        left=2,
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _summary(outcomes: Sequence[Outcome]) -> list[str]:
    met = sum(outcome.met for outcome in outcomes)
    missed = [outcome for outcome in outcomes if outcome.missed]
    silent = [outcome for outcome in outcomes if outcome.ratio is None]
    text = f"**{met} of {len(outcomes)} targets are met**"
    if missed:
        text += f", {len(missed)} {'is' if len(missed) == 1 else 'are'} missed"
    if silent:
        text += f", {len(silent)} could not be measured"
    result = [text + ".", ""]
    result += [f"- Not measured: {each.target.work}, {each.figure.title}: {each.why}." for each in silent]
    if silent:
        result.append("")
    return result


def _missed(run: Run, outcome: Outcome) -> list[str]:
    """By how much a target is missed, what that takes, and where the time goes."""
    target, figure = outcome.target, outcome.figure
    if outcome.ours is None or outcome.ratio is None:
        raise ValueError("nothing is known of it")
    direction = "more" if figure.more else "less"
    text = (
        f"### {target.work}: {figure.title}\n\nThe ratio is {outcome.ratio:.2f}, and the target "
        f"{_bound(outcome)}: {figure.text(outcome.ours)}, where {figure.text(outcome.needed)} would meet "
        f"it, {_percent(outcome.gap)} {direction}."
    )
    result = [text, ""]
    if target.part == "idle":
        return [*result, *_memory_parts(run)]
    cell = run.find("core", "10m" if target.load == BIG.name else "1k", target.row)
    if cell is None:
        return result
    saving = _saving(cell, outcome)
    if saving is not None:
        result += [saving[0], ""]
    load = BIG.name if target.load == BIG.name else SMALL.name
    profile = next((each for each in run.profiles if (each.row, each.load) == (target.row, load)), None)
    if profile is None:
        return [*result, "There is no profile of this row.", ""]
    if saving is not None:
        result += [*_closing(profile, cell, saving[1], saving[2]), ""]
    return [
        *result,
        f"Where the time goes: [{_profile_title(profile)}](#{_anchor(_profile_title(profile))}).",
        "",
    ]


def _saving(cell: Cell, outcome: Outcome) -> tuple[str, float, str | None] | None:
    """
    How much CPU would have to go.

    @return: the sentence, µs a request or s/GB, and the process that it is about (both if None);
        None if that can't be said.
    """
    name = outcome.target.figure
    if name == "p99" or not cell.rounds[0].cpu or outcome.ours is None:
        return None
    large = cell.load == BIG.name
    unit, factor = ("s/GB", 1e9) if large else ("µs a request", 1e6)
    digits = 2 if large else 0

    def amount(each: Round) -> float:
        return each.result.received if large else each.result.requests

    def cost(index: int | None) -> float:
        return median(
            cell,
            lambda each: (
                (sum(each.cpu) if index is None else each.cpu[index]) / max(1, amount(each)) * factor
            ),
        )

    if name in ("cpu", "cpu-gb"):
        now = cost(None)
        excess = now - outcome.needed
        return (
            f"The two processes take {now:.{digits}f} {unit}; {excess:.{digits}f} of them would have to go.",
            excess,
            None,
        )
    busy = [
        median(cell, lambda each, index=index: each.cpu[index] / each.result.seconds) for index in range(2)
    ]
    roles = ("server", "agent")
    fullest = 0 if busy[0] >= busy[1] else 1
    # what the machine could do at the needed rate
    if busy[fullest] >= _BUSY:
        now = cost(fullest)
        # megabytes to bytes, as the rate is in MB/s there
        needed = factor * busy[fullest] / (outcome.needed * (1e6 if large else 1.0))
        excess = now - needed
        return (
            f"The {roles[fullest]} is busy for {_percent(busy[fullest])} of a core and is what limits this "
            f"row (the {roles[1 - fullest]}: {_percent(busy[1 - fullest])}). It takes {now:.{digits}f} "
            f"{unit}; at the rate that is needed it would have {needed:.{digits}f}, so that "
            f"{excess:.{digits}f} would have to go.",
            excess,
            roles[fullest],
        )
    now = cost(None)
    everything = sum(busy)
    needed = factor * everything / (outcome.needed * (1e6 if large else 1.0))
    excess = now - needed
    return (
        f"No process of ours is full (the server is busy for {_percent(busy[0])} of a core, the agent for "
        f"{_percent(busy[1])}): what limits this row is that the machine's cores are shared with the "
        f"client and the service. The two take {now:.{digits}f} {unit}, and would have {needed:.{digits}f} "
        f"at the rate that is needed, so that {excess:.{digits}f} would have to go.",
        excess,
        None,
    )


def _costs(profile: Profile, cell: Cell, role: str | None) -> list[tuple[str, float]]:
    """What each place in the code costs, in the unit of the row, most first."""
    large = cell.load == BIG.name
    found: dict[str, float] = {}
    for index, name in enumerate(("server", "agent")):
        if role not in (None, name) or name not in profile.roles:
            continue
        whole = median(
            cell,
            lambda each, index=index: (
                each.cpu[index]
                / max(1, each.result.received if large else each.result.requests)
                * (1e9 if large else 1e6)
            ),
        )
        for what, share in profile.roles[name]:
            found[what] = found.get(what, 0.0) + share * whole
    return sorted(found.items(), key=lambda item: -item[1])


def _closing(profile: Profile, cell: Cell, excess: float, role: str | None) -> list[str]:
    """What would close a gap: the parts that are large enough."""
    large = cell.load == BIG.name
    digits, unit = (2, "s/GB") if large else (1, "µs")
    costs = _costs(profile, cell, role)
    if excess <= 0 or not costs:
        return []
    named = ", ".join(f"`{what}` {cost:.{digits}f}" for what, cost in costs[:5])
    whole = sum(cost for _, cost in costs)
    own = sum(cost for what, cost in costs if "/" in what)
    kernel = _kernel(cell, role) * whole
    text = f"What would close it: the largest parts are {named} ({unit}). "
    if excess > whole:
        return [text + "Even all of them together are less than what would have to go."]
    text += f"All of it would have to cost {_percent(excess / whole)} less"
    if own > excess:
        text += f"; our own modules alone (without {_outside(costs)}) {_percent(excess / own)} less"
    else:
        text += f"; our own modules are {own:.{digits}f} of it, so that work there alone would not do"
    text += f". The kernel's part is {kernel:.{digits}f}"
    if excess > whole - kernel:
        text += ", so that fewer system calls or less copying would have to be a part of it."
    else:
        text += f", and the interpreter's and libraries' {whole - kernel:.{digits}f}."
    return [text]


def _kernel(cell: Cell, role: str | None) -> float:
    """The share of the CPU time that was spent in the kernel."""
    wanted = [index for index, name in enumerate(("server", "agent")) if role in (None, name)]
    return median(
        cell,
        lambda each: (
            sum(each.system[index] for index in wanted) / (sum(each.cpu[index] for index in wanted) or 1.0)
        ),
    )


def _outside(costs: Sequence[tuple[str, float]]) -> str:
    names = [what for what, _ in costs if "/" not in what]
    return " and ".join(f"`{name}`" for name in names[:3]) or "anything"


def _profile_title(profile: Profile) -> str:
    return f"Profile of {profile.row}, {profile.load}"


def _anchor(text: str) -> str:
    """What GitHub makes of a heading."""
    return "".join(each for each in text.lower().replace(" ", "-") if each.isalnum() or each in "-_")


def _profile(run: Run, profile: Profile) -> list[str]:
    """One profile: the cost by part, and the flame graphs."""
    part, load = ("http2", "1k") if profile.load == "h2" else ("core", profile.load)
    cell = run.find(part, load, profile.row)
    large = profile.load == BIG.name
    unit = "s/GB" if large else "µs a request"
    digits = 2 if large else 1
    result = [f"### {_profile_title(profile)}", ""]
    rows = []
    names = list(
        dict.fromkeys(what for role in profile.roles.values() for what, share in role[:8] if share >= 0.01)
    )
    for what in names:
        row = [f"`{what}`"]
        for index, role in enumerate(profile.roles):
            share = dict(profile.roles[role]).get(what, 0.0)
            if not share:
                row.append("-")
                continue
            if cell is None:
                row.append(_percent(share))
                continue
            whole = median(
                cell,
                lambda each, index=index: (
                    each.cpu[index]
                    / max(1, each.result.received if large else each.result.requests)
                    * (1e9 if large else 1e6)
                ),
            )
            row.append(f"{share * whole:.{digits}f} ({_percent(share)})")
        rows.append(row)
    result += _table(["place", *(f"{role}, {unit}" for role in profile.roles)], rows)
    if cell is not None:
        kernel = [
            median(cell, lambda each, index=index: each.system[index] / (each.cpu[index] or 1.0))
            for index in range(len(cell.rounds[0].cpu))
        ]
        result += [
            "Of this the kernel has "
            + " and ".join(
                f"{_percent(share)} in the {role}" for role, share in zip(profile.roles, kernel, strict=False)
            )
            + "; a system call counts for the place that makes it.",
            "",
        ]
    for role, functions in profile.functions.items():
        top = ", ".join(f"`{what}` {_percent(share)}" for what, share in functions[:6])
        result.append(f"- {role}: {top}")
    links = ", ".join(f"[{role}]({PLOTS}/{name})" for role, name in profile.flames.items())
    return [*result, "", f"Flame graphs: {links}.", ""]


def _range(cell: Cell, figure: Callable[[Round], float], digits: int = 0) -> str:
    values = [figure(each) for each in cell.rounds]
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"


def _ratio(cell: Cell, base: Cell | None, figure: Callable[[Round], float]) -> str:
    if base is None or not cell.rounds[0].cpu or not median(base, figure):
        return "-"
    return f"{median(cell, figure) / median(base, figure):.2f}"


def _cost(cell: Cell, figure: Callable[[Round], float]) -> str:
    """A CPU figure, and its parts by process."""
    if not cell.rounds[0].cpu:
        return "-"
    amount = median(cell, figure)
    digits = 0 if amount >= 10 else 2
    text = f"{amount:.{digits}f}"
    total = median(cell, lambda each: sum(each.cpu))
    if len(cell.rounds[0].cpu) == 2 and total:
        parts = [
            median(cell, lambda each, index=index: each.cpu[index]) / total * amount for index in range(2)
        ]
        text += " (" + " + ".join(f"{each:.{digits}f}" for each in parts) + ")"
    return text


def _peers(run: Run, part: str, load: str) -> list[str]:
    """A table of peers side by side under one load."""
    cells = run.select(part, load)
    large = load == BIG.name
    main = FIGURES["megabytes" if large else "rate"]
    cost = FIGURES["cpu-gb" if large else "cpu"]
    base = run.find(part, load, BASE)
    rows, broken = [], []
    for cell in cells:
        if not cell.valid:
            reason = (cell.problems or "not measured").strip().splitlines()
            broken.append(f"- {cell.title}: {reason[0]}{' ... ' + reason[-1].strip() if reason[1:] else ''}")
            rows.append([cell.title, "invalid", *[""] * 8])
            continue
        proxies = bool(cell.rounds[0].cpu)
        rows.append(
            [
                cell.title,
                f"{median(cell, main.of):,.0f}",
                _range(cell, main.of),
                _ratio(cell, base, main.of),
                f"{median(cell, lambda each: each.p50):.2f}",
                f"{median(cell, lambda each: each.p99):.2f}",
                _cost(cell, cost.of),
                _ratio(cell, base, cost.of),
                f"{median(cell, lambda each: sum(each.resident)) / 1e6:.0f}" if proxies else "-",
                f"{median(cell, lambda each: each.disturbance):.2f}",
            ]
        )
    if not rows:
        return ["Not measured.", ""]
    heads = [
        *("path", main.title, "rounds", "x Envoy", "p50 ms", "p99 ms"),
        f"CPU {'s/GB' if large else 'µs/request'} (server + agent)",
        *("CPU x Envoy", "resident MB", "cores used by others"),
    ]
    result = _table(heads, rows)
    if broken:
        result += ["Invalid, and compared with nothing:", *broken, ""]
    return result


def _differing(run: Run) -> list[str]:
    """What becomes of the targets when requests differ from each other."""
    base = run.find("varied", VARIED.name, BASE)
    found = []
    for target in TARGETS:
        cell = run.find("varied", VARIED.name, target.row)
        if (target.part, target.load) != ("core", SMALL.name) or cell is None or base is None:
            continue
        figure = FIGURES[target.figure]
        ratio = round(median(cell, figure.of) / (median(base, figure.of) or 1.0), 2)
        met = ratio >= target.bound if figure.more else ratio <= target.bound
        found.append(
            f"{ratio:.2f} for {figure.title} of {cell.title.removeprefix('ours, ')} "
            f"({'≥' if figure.more else '≤'} {target.bound:g}: {'met' if met else 'missed'})"
        )
    if not found:
        return []
    return [
        "wrk sends the same request again and again, which helps whoever remembers the last one. With "
        f"[requests that differ](#{_anchor(VARIED.title)}) the ratios are {', '.join(found)}.",
        "",
    ]


def _relays(run: Run) -> list[str]:
    """Compare what relays bytes with what Envoy has for that."""
    ours, envoys = run.find("core", "1k", "ours-tcp"), run.find("core", "1k", "envoy-tcp")
    if ours is None or envoys is None:
        return []
    rate, cost = (
        median(ours, figure.of) / median(envoys, figure.of) for figure in (FIGURES["rate"], FIGURES["cpu"])
    )
    return [
        f"Compared with Envoy's own tcp_proxy row, relay + relay answers {rate:.2f} times as "
        f"many requests of 1 KB, at {cost:.2f} times the CPU per request.",
        "",
    ]


def _bars(title: str, cells: Sequence[Cell], figure: str) -> str:
    """Bars of all proxies."""
    of, digits = FIGURES[figure].of, FIGURES[figure].digits
    items = []
    for cell in cells:
        if cell.valid and cell.rounds[0].cpu:
            series = 0 if cell.row.startswith("envoy") else 1 if cell.row.startswith("ours") else None
            value = median(cell, of)
            items.append(Bar(cell.title, value, f"{value:,.{digits}f}", series=series))
    return bars(title, items)


def _curves(
    run: Run, part: str, figure: Callable[[Round], float], load: str | None = None
) -> dict[str, list[tuple[float, float]]]:
    """Points by row."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in run.select(part, load):
        if cell.valid:
            found.setdefault(cell.title, []).append((cell.x, median(cell, figure)))
    return {name: sorted(points) for name, points in found.items()}


def _growth_table(
    run: Run,
    part: str,
    what: str,
    figures: Sequence[tuple[str, Callable[[Round], float], int]],
    text: Callable[[float], str],
) -> list[str]:
    """A table with a line for each value of what grows and each row."""
    rows = []
    cells = run.select(part)
    for x in sorted({cell.x for cell in cells}):
        for cell in cells:
            if cell.x != x:
                continue
            if cell.valid:
                values = [f"{median(cell, of):,.{digits}f}" for _, of, digits in figures]
            else:
                values = [f"invalid: {(cell.problems or 'not measured').strip().splitlines()[0]}"]
                values += [""] * (len(figures) - 1)
            rows.append([text(x), cell.title, *values])
    if not rows:
        return ["Not measured.", ""]
    return _table([what, "path", *(name for name, _, _ in figures)], rows, left=2)


def _trend(
    run: Run, part: str, figure: Callable[[Round], float], unit: str, text: Callable[[float], str]
) -> list[str]:
    """A sentence for each row: from where to where, and where it is highest."""
    result = []
    for name, points in _curves(run, part, figure).items():
        if len(points) < 2:
            continue
        (first, low), (last, high) = points[0], points[-1]
        best = max(points, key=lambda point: point[1])
        result.append(
            f"- {name}: {low:,.0f} {unit} at {text(first)}, {high:,.0f} at {text(last)}"
            + (f"; most at {text(best[0])}: {best[1]:,.0f}." if best[0] not in (first, last) else ".")
        )
    return [*result, ""] if result else []


def _bytes(size: float) -> str:
    for unit, amount in (("GB", 1e9), ("MB", 1024**2), ("KB", 1024)):
        if size >= amount:
            return f"{size / amount:.0f} {unit}"
    return f"{size:.0f} B"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _growth(run: Run, plots: dict[str, str]) -> list[str]:
    result = ["## How the figures grow", ""]
    rate = ("requests/s", lambda each: each.rate, 0)
    cpu = ("CPU µs/request", lambda each: each.cpu_per_request, 0)
    p99 = ("p99 ms", lambda each: each.p99, 2)
    resident = ("resident MB", lambda each: sum(each.resident) / 1e6, 0)
    for part, heading, what, note in (
        (
            "connections",
            "Client connections, 1 KB",
            "connections",
            "A plain reverse connection carries one request at a time, and there are 64: more clients "
            "than that take turns. With mux there is one, for all of them.",
        ),
        (
            "agents",
            "Agents, 1 KB, 32 client connections",
            "agents",
            "Light agents, all in one process that answers the requests itself, with one plain connection "
            "each: what counts is the server alone. One agent serves one request at a time.",
        ),
        (
            "reverse",
            "Reverse connections (connection_num), 1 KB, 32 client connections",
            "reverse connections",
            "A new pair for each figure.",
        ),
    ):
        result += [f"### {heading}", "", note, ""]
        if not run.select(part):
            result += ["Not measured.", ""]
            continue
        plots[f"{part}.svg"] = lines(heading, what, "requests/s", _curves(run, part, rate[1]))
        result += [f"![{heading}]({PLOTS}/{part}.svg)", ""]
        result += _trend(run, part, rate[1], "requests/s", _number)
        result += _growth_table(run, part, what, (rate, cpu, p99, resident), _number)
    heading = "Body size, 4 connections"
    result += [
        f"### {heading}",
        "",
        f"The last one is a single transfer of {_bytes(GIANT.size)} over one connection.",
        "",
    ]
    if run.select("sizes"):
        texts = {cell.x: _bytes(cell.x) for cell in run.select("sizes")}
        plots["sizes.svg"] = lines(
            heading, "size", "MB/s", _curves(run, "sizes", lambda each: each.megabytes), x_text=texts
        )
        result += [f"![{heading}]({PLOTS}/sizes.svg)", ""]
        result += _trend(run, "sizes", lambda each: each.megabytes, "MB/s", _bytes)
        result += _growth_table(
            run,
            "sizes",
            "size",
            (
                ("MB/s", lambda each: each.megabytes, 0),
                ("CPU s/GB", lambda each: each.cpu_per_gigabyte, 2),
                p99,
                resident,
            ),
            _bytes,
        )
    else:
        result += ["Not measured.", ""]
    return result


def _steady(run: Run) -> list[str]:
    cells = run.select("steady")
    result = [
        "## Latency at a constant rate",
        "",
        "Requests are due at fixed instants, at half of the peak rate of the slower one of a row of ours "
        "and Envoy's; a request's latency counts from when it was due, whatever became of those before "
        "it. Each line of Envoy's belongs to those below it. *Client late* is how late the client was "
        "itself, which is in the latencies of all rows.",
        "",
    ]
    rows = []
    for cell in cells:
        if not cell.valid:
            rows.append([cell.title, _number(cell.x), f"invalid: {cell.problems.splitlines()[0]}", *[""] * 6])
            continue

        def extra(name: str, cell: Cell = cell) -> float:
            return statistics.median(each.result.extra.get(name, 0.0) for each in cell.rounds) * 1e3

        base = run.find("steady", cell.load, BASE, cell.x)
        rows.append(
            [
                cell.title,
                _number(cell.x),
                f"{median(cell, lambda each: each.p50):.2f}",
                f"{median(cell, lambda each: each.p99):.2f}",
                _range(cell, lambda each: each.p99, 2),
                _ratio(cell, base, lambda each: each.p99),
                f"{extra('p999'):.2f}",
                f"{extra('late_p50'):.2f} / {extra('late_p99'):.2f}",
                _cost(cell, lambda each: each.cpu_per_request),
            ]
        )
    if not rows:
        return [*result, "Not measured.", ""]
    heads = ["path", "requests/s", "p50 ms", "p99 ms", "rounds", "p99 x Envoy", "p99.9 ms"]
    return [*result, *_table([*heads, "client late, p50 / p99 ms", "CPU µs/request (server + agent)"], rows)]


def _memory_parts(run: Run) -> list[str]:
    """What the memory of a process that does nothing is."""
    facts = run.facts
    if "import-reverseproxy" not in facts:
        return []
    python, twisted, everything = (
        facts[f"import-{name}"] / 1e6 for name in ("python", "twisted", "reverseproxy")
    )
    text = (
        f"Of a process's memory, the interpreter takes {python:.0f} MB, Twisted and OpenSSL with what they "
        f"import {twisted - python:.0f} MB, and this project with what it imports "
        f"{everything - twisted:.0f} MB, before there is a configuration."
    )
    cell = run.find("idle", "idle", "ours-http-tcp")
    base = run.find("idle", "idle", BASE)
    if cell is not None and base is not None:
        bound = next(target.bound for target in TARGETS if target.part == "idle")
        room = bound * sum(base.rounds[0].resident) / 1e6 / 2
        text += f" To meet the target, a process may have {room:.0f} MB"
        if room < everything:
            text += (
                f", which is {everything - room:.0f} MB less than after the imports alone: only importing "
                "less, or sharing it between the two processes, would do."
            )
        else:
            text += f", {room - everything:.0f} MB of it for what comes after the imports."
    return [text, ""]


def _memory(run: Run) -> list[str]:
    result = [
        "## Memory",
        "",
        "Resident memory of the processes after one request and before any load; pages that processes "
        "share count in each.",
        "",
    ]
    rows = []
    for cell in run.select("idle"):
        sizes = [size / 1e6 for size in cell.rounds[0].resident]
        rows.append([cell.title, f"{sum(sizes):.0f}", " + ".join(f"{size:.0f}" for size in sizes)])
    result += _table(["path", "MB", "by process"], rows) if rows else ["Not measured.", ""]
    facts = run.facts
    rows = [
        [label, *(f"{facts[f'connections-{kind}-{role}'] / 1e6:.1f}" for role in ("server", "agent"))]
        for kind, label in (
            ("plain", "ours, plain"),
            ("mux", "ours, connections with mux"),
            ("envoy", "Envoy's pair"),
        )
        if f"connections-{kind}-agent" in facts
    ]
    if rows:
        result += ["What 1,000 idle reverse connections take:", ""]
        result += _table(["connections", "server, MB", "agent, MB"], rows)
    return [*result, *_memory_parts(run)]


def _bolt(run: Run) -> list[str]:
    result = [
        "## bolt",
        "",
        "Echoes of 1 KB over four client connections, each with the same number of requests under way; "
        "one reverse connection. Client and service are small programs in Python and share the cores with "
        "the rest.",
        "",
    ]
    rows = []
    for cell in run.select("bolt"):
        if not cell.valid:
            rows.append(
                [cell.title, _number(cell.x), f"invalid: {cell.problems.splitlines()[0]}", "", "", ""]
            )
            continue
        rows.append(
            [
                cell.title,
                _number(cell.x),
                f"{median(cell, lambda each: each.rate):,.0f}",
                f"{median(cell, lambda each: each.p50):.2f}",
                f"{median(cell, lambda each: each.p99):.2f}",
                _cost(cell, lambda each: each.cpu_per_request),
            ]
        )
    if not rows:
        return [*result, "Not measured.", ""]
    heads = ["path", "under way", "requests/s", "p50 ms", "p99 ms", "CPU µs/request (server + agent)"]
    return [*result, *_table(heads, rows)]


def _workers(run: Run) -> list[str]:
    result = ["## Workers", ""]
    loads = list(dict.fromkeys(cell.load for cell in run.select("workers")))
    for load in loads:
        count = load.rpartition("-")[2]
        one, two = (run.find("workers", load, f"ours-workers-{number}") for number in (1, 2))
        result += [f"1 KB over {count} client connections:", "", *_peers(run, "workers", load)]
        if one is not None and two is not None:
            rate, cost = (
                median(two, figure.of) / (median(one, figure.of) or 1.0)
                for figure in (FIGURES["rate"], FIGURES["cpu"])
            )
            result += [
                f"Two workers answer {rate:.2f} times as many requests as one, at {cost:.2f} times the CPU "
                "for each.",
                "",
            ]
    if loads:
        result += [
            "There are 64 plain reverse connections, which belong to the workers that accepted them: where "
            "clients outnumber them, connections move to the worker whose requests have waited longest. "
            "Client, service and agent share the cores with all of them, so that this says what workers "
            "cost here, and what they bring only on a machine with cores to spare.",
            "",
        ]
    else:
        result += [f"Left out: {run.left_out.get('ours-workers-2', 'not measured')}.", ""]
    return result


def _scale(run: Run, plots: dict[str, str]) -> list[str]:
    """What C{scale.py} found."""
    result = [
        "## Scale and recovery",
        "",
        "From `benchmarks/scale.py`: many agents of one tunnel server.",
        "",
    ]
    found = run.scale
    if memory := found.get("memory"):
        title = "Memory of the server by idle reverse connections"
        curve = [(float(count), size / 1e6) for count, size in memory["curve"]]
        plots["scale-memory.svg"] = lines(title, "connections", "resident MB", {"server": curve}, log_x=False)
        result += [
            f"An idle reverse connection takes {memory['bytes_per_connection']:,} bytes of the server: "
            f"{curve[0][1]:.0f} MB without any, {curve[-1][1]:.0f} MB with {curve[-1][0]:,.0f}.",
            "",
            f"![{title}]({PLOTS}/scale-memory.svg)",
            "",
        ]
    if joins := found.get("joins"):
        result += [
            f"{joins['joins_per_second']:,} connections joined in a second, at "
            f"{joins['cpu_us_per_join']:,} µs of the server's CPU each. When all leave at once, each takes "
            f"{joins['cpu_us_per_leave']:,} µs: {joins['leaves_per_cpu_second']:,} in a second of CPU.",
            "",
        ]
    if picking := found.get("picking"):
        sizes = sorted({row["hosts"] for row in picking})
        rows = []
        for balancer in dict.fromkeys(row["balancer"] for row in picking):
            costs = {row["hosts"]: row for row in picking if row["balancer"] == balancer}
            values = [f"{costs[size]['request_us']:.2f}" if size in costs else "-" for size in sizes]
            rows.append([f"`{balancer}`", *values, f"{costs[max(costs)]['leave_us']:.1f}"])
        result += ["What it costs to choose a host and give it back, and to have one leave, µs of CPU:", ""]
        result += _table(["balancer", *(f"{size:,} hosts" for size in sizes), "leave"], rows)
    if recovery := found.get("recovery"):
        title = "Connections back after the server was started again"
        curve = [(0.0, 0.0), *((row["seconds"], row["serving"] * 100) for row in recovery["curve"])]
        plots["scale-recovery.svg"] = lines(title, "seconds", "%", {"serving": curve}, log_x=False)
        back = ", ".join(f"{share} after {seconds:g} s" for share, seconds in recovery["back"].items())
        missing = "" if "100 %" in recovery["back"] else f"; {curve[-1][1]:.1f} % after {curve[-1][0]:.0f} s"
        result += [
            f"The server of {recovery['connections']:,} connections of {recovery['agents']:,} agents was "
            f"killed, and started again {recovery['down']:g} s later. Back were {back or 'none'}{missing}. "
            f"Agents dialled {recovery['most_dials_per_second']:,} times in a second at most.",
            "",
            f"![{title}]({PLOTS}/scale-recovery.svg)",
            "",
        ]
    if not found:
        result += ["Not measured.", ""]
    return result


def _long(run: Run) -> list[str]:
    """Single transfers over long wires, each beside a plain connection over the same one."""
    cells = run.select("long")
    if not cells:
        return []
    columns = [(x, way) for x in sorted({cell.x for cell in cells}) for way in DIRECTIONS]
    rows = []
    for name, path in PATHS.items():
        row = [path.title]
        for x, way in columns:
            cell = run.find("long", way, name, x)
            if cell is None:
                row.append("-")
                continue
            text = f"{median(cell, lambda each: each.megabytes):,.0f}"
            if path.plain:
                plain = run.find("long", way, path.plain, x)
                text += f" ({_ratio(cell, plain, lambda each: each.megabytes)})"
            row.append(text)
        rows.append(row)
    return [
        "## Long wires",
        "",
        "One transfer at a time, downloads and uploads, over an emulated wire of 200 MB/s; there is none "
        "for 0 ms. MB/s, and in parentheses the ratio to what plain connections get over the same wire: to "
        "the last row above that has none. The wire, the client and the service share the cores with ours.",
        "",
        *_table(["path", *(f"{x:.0f} ms {way}" for x, way in columns)], rows),
    ]


def _fleet(run: Run) -> list[str]:
    """What it costs that a request comes to another server than its agent."""
    if not run.select("fleet"):
        return []
    result = [
        "## A fleet",
        "",
        "Two servers, linked by TLS, and an agent that is connected to one. Clients come to that one, "
        "or to the other, which forwards. The CPU is that of both servers and of the agent.",
        "",
    ]
    for load in FLEET_LOADS:
        result += [f"{load.title}:", "", *_peers(run, "fleet", load.name)]
    return result


def _disturbed(run: Run) -> list[str]:
    rounds = [each for cell in run.cells for each in cell.rounds if each.cpu]
    if not rounds:
        return []
    most = max(each.disturbance for each in rounds)
    loud = sum(not each.quiet for each in rounds)
    text = (
        f"What had no part in the run used at most {most:.2f} cores during a round, and more than "
        f"{QUIET:g} in {loud} of {len(rounds)} rounds"
    )
    return [text + (": **the machine was not quiet**." if loud > len(rounds) / 20 else "."), ""]


def render(run: Run, results: str) -> tuple[str, dict[str, str]]:
    """
    Write the report.

    @param results: where the figures are, relative to the report.
    @return: Markdown, and the plots that it shows, by their names in its directory of plots.
    """
    plots: dict[str, str] = {}
    when = datetime.datetime.fromisoformat(run.when)
    outcomes = [judge(run, target) for target in TARGETS]
    missed = [outcome for outcome in outcomes if outcome.missed]
    plots["targets.svg"] = bars(
        "Ratios to Envoy's pair, and the targets",
        [
            Bar(
                f"{_brief(outcome)} {_bound(outcome)}",
                outcome.ratio or 0.0,
                f"{outcome.ratio:.2f}" if outcome.ratio is not None else "not measured",
                mark=outcome.target.bound,
                good=outcome.met if outcome.ratio is not None else None,
            )
            for outcome in outcomes
        ],
    )
    text = [
        "# Performance",
        "",
        f"Everything here was measured and written by one run of `{run.command}`, on {when:%Y-%m-%d} at "
        f"{when:%H:%M} UTC, in {run.duration / 60:.1f} minutes. The figures themselves are in "
        f"[{results.rpartition('/')[2]}]({results}); how they are taken, and how to read them, is in "
        "[benchmarks/README.md](../benchmarks/README.md).",
        "",
        f"The machine: {run.machine}. "
        + ", ".join(f"{name} {version}" for name, version in run.versions.items())
        + ".",
        "",
        "Everything runs on that machine, over loopback: client, service and proxies share its cores, and "
        "all proxy processes run one thread of work. Ratios are of medians over "
        f"{_count(round(run.options.get('rounds', 0)), 'interleaved round')} of "
        f"{run.options.get('seconds', 0):g} s, to Envoy's reverse tunnel pair in the same run. CPU per "
        "request and per GB carry over to other machines; requests/s, MB/s and their ratios do less.",
        "",
        *_disturbed(run),
        "Rows of ours are named for what the server does + what the agent does. *HTTP* and *HTTP/2* parse "
        "and route requests; *relay* is tcp_proxy, which passes bytes on. There are 64 reverse "
        "connections, which carry one request or session at a time each, or with *mux* a single one for "
        "all. Envoy's pair speaks HTTP/2 in its tunnel, over one connection.",
        "",
        "## Targets",
        "",
        *_summary(outcomes),
        *target_table(run),
        f"![Ratios to Envoy's pair, and the targets]({PLOTS}/targets.svg)",
        "",
        *_differing(run),
        "The tunnel of Envoy's pair is in clear in all rows, as it encrypts nothing that it carries: rows "
        "with TLS are compared with it all the same.",
        "",
    ]
    if missed:
        text += ["## Where targets are missed", ""]
        for outcome in missed:
            text += _missed(run, outcome)
    if run.failures or run.left_out:
        text += ["## What is missing", ""]
        for name, why in {**run.failures, **run.left_out}.items():
            text.append(f"- {name}: {why.strip().splitlines()[0]}")
        text.append("")
    for load in (SMALL, BIG):
        text += [f"## {load.title}", ""]
        cells = run.select("core", load.name)
        figure, cost = ("megabytes", "cpu-gb") if load is BIG else ("rate", "cpu")
        if cells:
            plots[f"{load.name}.svg"] = _bars(f"{load.title}: {FIGURES[figure].title}", cells, figure)
            plots[f"{load.name}-cpu.svg"] = _bars(
                f"{load.title}: {FIGURES[cost].title}, {FIGURES[cost].unit}", cells, cost
            )
            text += [
                f"![{FIGURES[figure].title}]({PLOTS}/{load.name}.svg)",
                "",
                f"![{FIGURES[cost].title}]({PLOTS}/{load.name}-cpu.svg)",
                "",
            ]
        text += _peers(run, "core", load.name)
        if load is SMALL:
            text += _relays(run)
    if run.select("varied"):
        text += [
            f"## {VARIED.title}",
            "",
            "In the tables above all requests of a connection are the same, and so are the answers. Here "
            f"are {VARIED.variants} requests in turns, with paths and a header of their own, and answers "
            "with headers of their own.",
            "",
            *_peers(run, "varied", VARIED.name),
        ]
    text += _steady(run)
    text += [
        "## HTTP/2",
        "",
        "h2load, one connection with 32 requests under way; the service speaks HTTP/1. nginx and haproxy "
        "are plain proxies of one hop.",
        "",
        *_peers(run, "http2", "1k"),
    ]
    profile = next((each for each in run.profiles if each.load == "h2"), None)
    if profile is not None:
        text += [
            f"The cost by part is in the [{_profile_title(profile)}](#{_anchor(_profile_title(profile))}).",
            "",
        ]
    text += [
        *_bolt(run),
        *_memory(run),
        *_growth(run, plots),
        *_workers(run),
        *_scale(run, plots),
        *_long(run),
        *_fleet(run),
    ]
    if run.profiles:
        text += [
            "## Profiles",
            "",
            "Sampled by py-spy under the same load, and put on the CPU figures above: what a place costs "
            "is its share of the samples times what the process costs. Places are modules of this "
            "project, other packages, and Python's own library. Samples go by the clock: a process that "
            "waits for a processor is counted where it waits, which is in system calls for the most part.",
            "",
        ]
        for profile in run.profiles:
            text += _profile(run, profile)
    return "\n".join(text).rstrip() + "\n", plots


def _brief(outcome: Outcome) -> str:
    """A target in little room."""
    names = {
        "ours-http-tcp": "HTTP + relay",
        "ours-http": "HTTP + HTTP",
        "ours-http-tcp-mux": "HTTP + relay, mux",
        "ours-tcp": "relay + relay",
        "ours-http-tcp-tls": "HTTP + relay, TLS",
    }
    load = {"1k": "1 KB ", "10m": "10 MB ", "idle": ""}[outcome.target.load]
    return f"{names[outcome.target.row]}: {load}{outcome.figure.title}"
