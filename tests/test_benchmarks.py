"""The pages say what the stored results say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script",
    [["learner_table.py"], ["profile_table.py"], ["speed.py", "--table"], ["learned_optimizers.py"]],
    ids=" ".join,
)
def test_tables_in_the_pages_come_from_the_stored_results(script):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script[0], *script[1:], "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
