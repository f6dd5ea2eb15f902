"""Costs in words: hours, and tables of the ways to share GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from diascope.studies.costs.sharing import Way


def hours(seconds: float) -> str:
    """Return a time in its own unit, such as "40 s", "12 min", "3.4 h" or "12 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def table_lines(counts: Sequence[Sequence[Way]]) -> list[str]:
    """Return a markdown table of the ways to use each number of GPUs.

    Of each number: one job at a time on all of them, jobs side by side on one each, and the way
    that is over first.
    """
    lines = [
        "| GPUs | one run at a time, on all | runs side by side, one GPU each | "
        "soonest over | longest chain |",
        "|---|---|---|---|---|",
    ]
    for found in counts:
        each, all_ = found[0], found[-1]
        best = min(found, key=lambda way: (way.seconds, way.each))
        lines.append(
            f"| {best.gpus} | {hours(all_.seconds)} | {hours(each.seconds)} | "
            f"{hours(best.seconds)}: {described(best)} | {hours(best.path)} |"
        )
    return lines


def described(way: Way) -> str:
    """Return in words how GPUs are shared."""
    if way.gpus == 1:
        return "one after the other"
    if way.each == 1:
        return "side by side"
    if way.each == way.gpus:
        return "one at a time"
    return f"{way.beside} runs side by side, {way.each} GPUs each"
