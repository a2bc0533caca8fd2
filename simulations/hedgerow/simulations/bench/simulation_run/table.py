"""The benchmark's figures as lines for a person."""

from __future__ import annotations

from typing import Any

_HEAD = (
    f"{'workload':<16}{'engine':<15}{'s/round':>10}{'min':>10}{'x ours':>8}{'(min)':>8}{'wanted':>8}"
    f"{'|Δ model|':>11}{'peak MiB':>10}"
)


def table(result: dict[str, Any]) -> str:
    """Return all rows, the floor under each workload, and the first rounds."""
    lines = [_HEAD]
    for found in result["workloads"]:
        name = f"{found['workload']}{' dp' if found['dp'] else ''}"
        for row in found["engines"]:
            lines.append(_line(name, row))
            name = ""
        lines.append(_floor(found))
    lines.append("first round, seconds from the start of the process (cohort of the family's first workload)")
    for start in result["starts"]:
        times = ", ".join(f"{name} {value:.1f}" for name, value in start["first_round_s"].items())
        wanted = "" if start["wanted_s"] is None else f"   (wanted of ours: {start['wanted_s']:g})"
        lines.append(f"{start['family']:<16}{times}{wanted}")
        lines += [f"    {name} failed: {_last(why)}" for name, why in start["errors"].items()]
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    if row["s_per_round"] is None:
        return f"{name:<16}{row['engine']:<15}{'failed: ' + _last(row['error'] or 'no figures')}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
    of_minima = "" if row["ratio_of_minima"] is None else f"{row['ratio_of_minima']:.1f}"
    wanted = "" if row["wanted_ratio"] is None else f"≥ {row['wanted_ratio']:g}"
    difference = "-" if row["difference"] is None else f"{row['difference']:.1e}"
    mark = " !" if row["same"] is False else ""
    pss = "-" if row["peak_pss_mib"] is None else str(row["peak_pss_mib"])
    return (
        f"{name:<16}{row['engine']:<15}{row['s_per_round']:>10.4f}{row['min_s']:>10.4f}{ratio:>8}{of_minima:>8}{wanted:>8}"
        f"{difference:>11}{pss:>10}{mark}"
    )


def _floor(found: dict[str, Any]) -> str:
    if found["floor_s"] is None:
        return ""
    share = ""
    if found["of_floor"] is not None:
        wanted = found["wanted_of_floor"]
        share = f"; ours is at {found['of_floor']:.0%} of it" + (f" (wanted {wanted:.0%})" if wanted else "")
    return (
        f"{'':<16}{'(floor)':<15}{found['floor_s']:>10.4f}   {found['mflop_per_sample']:g} MFLOP/sample × "
        f"{found['samples_per_round']:g} at {found['sgemm_gflop_s']:g} GFLOP/s{share}"
    )


def _last(text: str) -> str:
    """Return the last line of an engine's complaint."""
    return text.strip().splitlines()[-1][:160] if text.strip() else ""
