"""The pages say what the stored results say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_tables_in_the_pages_come_from_the_stored_results():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "learner_table.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
