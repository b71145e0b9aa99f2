"""The command ``quickstudy data``: what a data set holds, and fetching it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress
from rich.table import Table

from quickstudy.commands_options import Json, Root, say
from quickstudy.console import err, out, print_json
from quickstudy.data.download import BASE_URL, LISTS_URL, download_omniglot
from quickstudy.data.root import MissingData
from quickstudy.tasks.named import named_data


def data(
    name: Literal["omniglot", "glyphs", "fsdd"],
    download: Annotated[bool, typer.Option("--download", help="Fetch and verify the omniglot archives.")] = False,
    url: Annotated[str | None, typer.Option(help="Where to fetch the two archives; by default their authors'.")] = None,
    lists_url: Annotated[str | None, typer.Option(help="Where to fetch the four Vinyals lists.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show what a data set holds; fetch omniglot with --download."""
    if download:
        root = _download(name, root, url or BASE_URL, lists_url or LISTS_URL)
    elif url or lists_url:
        raise ValueError("--url and --lists-url say where to download from: add --download")
    rows: list[dict[str, Any]] = []
    missing: list[MissingData] = []
    for split in {"omniglot": ("vinyals", "official"), "glyphs": ("scripts",), "fsdd": ("speakers", "digits")}[name]:
        for part in ("train", "validation", "test"):
            try:
                found = named_data(name, part, split=split, root=root)
            except MissingData as error:
                missing.append(error)
                continue
            counts = {"classes": len(found.classes), "groups": len(set(found.groups)), "examples": len(found.y)}
            rows.append({"split": split, "part": part, **counts})
    if not rows:
        raise missing[0]
    for error in missing:
        say(f"left out: {error}")
    if json:
        print_json({"data": name, "parts": rows})
        return
    table = Table(*rows[0], title=name)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row.values()))
    out.print(table)


def _download(name: str, root: Path | None, url: str, lists_url: str) -> Path:
    if name == "fsdd":
        raise ValueError(
            "fsdd is not fetched by this command: put the folder recordings of "
            "github.com/Jakobovski/free-spoken-digit-dataset, or recordings.zip of it, into the folder fsdd of the "
            "data folder, and leave --download out"
        )
    if name != "omniglot":
        raise ValueError(f"{name} are rendered on this machine and need no download: leave --download out")
    with Progress(console=err) as bar:
        items: dict[str, Any] = {}

        def on_bytes(file: str, done: int, total: int) -> None:
            if file not in items:
                items[file] = bar.add_task(file, total=total or None)
            bar.update(items[file], completed=done)

        return download_omniglot(root, base_url=url, lists_url=lists_url, progress=on_bytes)
