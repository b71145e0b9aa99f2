"""Write the table and the plot of docs/memory.md from benchmarks/results/profile.json.

python benchmarks/profile_table.py           # write
python benchmarks/profile_table.py --check   # exit status 1 if the page says something else
"""

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from quickstudy.profiling import Profile
from quickstudy.report import profile as plots

ROOT = Path(__file__).parents[1]
STORED = ROOT / "benchmarks" / "results" / "profile.json"
PAGE = ROOT / "docs" / "memory.md"
PLOT = ROOT / "docs" / "figures" / "memory.png"


def table(profile: Profile) -> str:
    """A row for each mode and number of inner steps."""
    rows = [
        f"| mode | inner steps | peak (MB) | {profile.clock} time (ms) | peak ÷ reverse | time ÷ reverse | growth |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in profile.rows:
        memory, time = profile.ratios(row)
        numbers = [
            _shown(None if row.peak_bytes is None else row.peak_bytes / 1e6, 1),
            _shown(None if profile.seconds(row) is None else 1e3 * (profile.seconds(row) or 0), 0),
            *(_shown(memory, 2), _shown(time, 2), _shown(profile.growth(row), 1)),
        ]
        rows.append(f"| `{row.mode}` | {row.steps:,} | {' | '.join(numbers)} |")
    return "\n".join(rows)


def page(text: str, profile: Profile) -> str:
    """The page with the table and the command between its marks."""
    filled = f"`{profile.setup.command()}`\n\n{table(profile)}"
    marks = r"(<!-- results: profile, [^\n]*-->\n).*?(\n<!-- /results -->)"
    return re.sub(marks, lambda found: found[1] + filled + found[2], text, flags=re.DOTALL)


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # never −0.0


def main() -> int:
    profile = Profile.from_dict(json.loads(STORED.read_text()))
    text = PAGE.read_text()
    if "--check" in sys.argv:
        return int(page(text, profile) != text)
    PAGE.write_text(page(text, profile))
    with TemporaryDirectory() as folder:
        PLOT.parent.mkdir(exist_ok=True)
        PLOT.write_bytes(plots.write(profile, Path(folder))[0].read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
