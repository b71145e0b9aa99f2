"""The command ``quickstudy serve``: a small server with a page to teach and try."""

import warnings
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from quickstudy.console import err


def serve(
    learner: Annotated[
        str, typer.Option(help="A learner of images: a name, a run folder or a learner file.")
    ] = "characters",
    state: Annotated[Path, typer.Option(help="Folder that keeps the tasks; made if it is not there.")] = Path("state"),
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="QUICKSTUDY_TOKEN",
            help="What clients must send as Authorization: Bearer; others can see it in the list of processes.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name it may be called by, as a proxy passes it on; may be repeated."),
    ] = None,
    max_tasks: Annotated[int, typer.Option(help="Tasks that may be kept.")] = 100,
    max_body: Annotated[int, typer.Option(help="Bytes of one request.")] = 5_000_000,
    workers: Annotated[int, typer.Option(help="Threads that compute; one for each processor core is best.")] = 2,
) -> None:
    """Serve tasks over HTTP, with a page at / and the calls at /docs; Ctrl-C or SIGTERM stops it."""
    try:
        import quickstudy.serve as serving  # here, because it needs an extra
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "quickstudy":
            raise
        raise ValueError(str(error)) from error
    if workers < 1:
        raise ValueError(f"--workers {workers}; required is at least 1")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the server refuses them itself
    limits = serving.Limits(tasks=max_tasks, body_bytes=max_body)

    def say(url: str) -> None:
        more = " and all other addresses of this machine" if host in ("0.0.0.0", "::") else ""
        err.print(f"quickstudy serves {learner} at {url}{more}", highlight=False, markup=False, soft_wrap=True)

    serving.serve(
        learner,
        state=state,
        host=host,
        port=port,
        token=token,
        limits=limits,
        allow_hosts=allow_host or (),
        workers=workers,
        started=say,
    )
