"""A small server: teach tasks by a few images over HTTP, classify, and keep everything. Needs the extra ``serve``."""

from importlib.util import find_spec

if missing := [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"the server needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
        "pip install 'quickstudy[serve]'",
        name=missing[0],
    )

from quickstudy.serve.app import create_app
from quickstudy.serve.limits import Limits
from quickstudy.serve.running import serve

__all__ = ["Limits", "create_app", "serve"]
