"""What a run notes of where and how it was begun."""

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import quickstudy


def about_process() -> dict[str, Any]:
    """Versions, machine and command of this process, as config.json holds them."""
    versions = {
        "quickstudy": quickstudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return {
        "versions": versions,
        "machine": {"threads": torch.get_num_threads(), "processor": platform.machine()},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
