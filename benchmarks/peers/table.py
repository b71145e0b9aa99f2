"""The tables of docs/speed.md, from the stored lines."""

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
BLOCK = re.compile(r"(<!-- speed: (\w+), written by benchmarks/speed\.py -->\n).*?(<!-- /speed -->)", re.DOTALL)


def write_table(results: Path, *, check: bool = False, page: Path = PAGE) -> int:
    """Write every block of the page, or with ``check`` only compare: 1 if it says something else."""
    text = page.read_text()
    new = with_tables(text, stored(results))
    if new != text and check:
        sys.stderr.write(f"{page.name}: not what {results} says: run python benchmarks/speed.py --table\n")
        return 1
    if new != text:
        page.write_text(new)
    return 0


def stored(results: Path) -> list[dict[str, Any]]:
    """All lines of full size."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [entry for entry in map(json.loads, lines) if not entry["quick"]]


def with_tables(text: str, entries: list[dict[str, Any]]) -> str:
    """The page with its blocks filled."""
    return BLOCK.sub(lambda m: f"{m.group(1)}{tables(m.group(2), entries)}\n{m.group(3)}", text)


def tables(job: str, entries: list[dict[str, Any]]) -> str:
    """A table for each device and number of threads that the job was measured on, of its last run there."""
    last: dict[tuple[Any, ...], str] = {}
    of_job = [entry for entry in entries if entry["job"] == job]
    for entry in of_job:
        last[entry["device"], entry["processor"], entry["threads"]] = entry["run"]
    found = []
    for where, run in last.items():
        rows = [e for e in of_job if (e["device"], e["processor"], e["threads"]) == where and e["run"] == run]
        found.append(table(rows))
    return "\n\n".join(found) or "No stored line yet."


def table(rows: list[dict[str, Any]]) -> str:
    """The candidates of one run."""
    first = rows[0]
    place = first["processor"] if first["device"] == "cpu" else f"{first['device']} ({first['processor']})"
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    plural = "s" if first["threads"] > 1 else ""
    other = any("against" in row for row in rows)
    titles = ["way", "ms", "× plain loop", *(["× exact, same strategy"] if other else []), "set-up, s"]
    titles += ["error, float32 (median, worst task)", "error, float64"]
    text = [
        f"{first['title']}.",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *("| " + " | ".join(cells(row, other)) + " |" for row in rows),
        "",
        f"On {place}, {first['threads']} thread{plural} of {first['cpu_count']} processors; {versions}; "
        f"`{first['command']}`, {first['run'][:10]}.",
    ]
    return "\n".join(text)


def cells(row: dict[str, Any], other: bool) -> list[str]:
    """One row of a table."""
    if "refused" in row:
        return [row["candidate"], "–", "–", *(["–"] if other else []), "–", "refused: " + escaped(row["refused"]), "–"]
    each = f"{row['error_f32_task_median']:.0e}, {row['error_f32_task_worst']:.0e}"
    return [
        row["candidate"],
        f"{1e3 * row['median_s']:.3g}" if row["median_s"] < 1 else f"{1e3 * row['median_s']:,.0f}",
        f"{row['ratio_to_plain_loop']:.2f}",
        *([f"{row['ratio_to_it']:.2f}" if "ratio_to_it" in row else "1"] if other else []),
        f"{row['setup_s']:.1f}",
        f"{row['error_f32']:.0e} ({each})",
        f"{row['error_f64']:.0e}" if "error_f64" in row else "–",
    ]


def escaped(text: str) -> str:
    """Without what would end a cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")
