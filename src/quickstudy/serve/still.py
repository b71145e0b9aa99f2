"""What the server sends as it is: the files of the page, and a plain page of docs that asks nobody outside."""

from html import escape
from importlib import resources
from typing import Any

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
}
_STYLE = """:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem }
section { border-top: 1px solid #8886; padding: .5rem 0 }
h2 { font-size: 1rem; margin: .5rem 0 } h2 b { font-family: ui-monospace, monospace }
table { border-collapse: collapse; font-size: .875rem } td, th { padding: .125rem 1rem .125rem 0; text-align: left;
vertical-align: top } code { overflow-wrap: anywhere }
"""


def still_files() -> dict[str, tuple[bytes, str]]:
    """Address → content and media type: the files of ``page``, of which index.html is also "/", and the docs' style.

    They are read once: no address of a request is ever looked up in the file system.
    """
    files = {"/docs.css": (_STYLE.encode(), _KINDS["css"])}
    folder = resources.files("quickstudy.serve").joinpath("page")
    for file in folder.iterdir() if folder.is_dir() else ():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None and file.is_file():
            files[f"/{file.name}"] = (file.read_bytes(), kind)
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def docs_page(openapi: dict[str, Any]) -> bytes:
    """The calls that an OpenAPI description holds, as plain HTML."""
    calls = [
        _call(path, method, call, openapi)
        for path, methods in openapi["paths"].items()
        for method, call in methods.items()
    ]
    title, version = escape(openapi["info"]["title"]), escape(openapi["info"]["version"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: HTTP interface</title><link rel="stylesheet" href="docs.css"></head>
<body><h1>{title} {version}</h1><p>{_prose(openapi["info"]["description"])}</p>
<p><a href="openapi.json">openapi.json</a> is the same for programs.</p>
<main>{"".join(calls)}</main></body></html>
""".encode()


def _call(path: str, method: str, call: dict[str, Any], openapi: dict[str, Any]) -> str:
    rows = [
        (f"{where['in']} <code>{escape(where['name'])}</code>", _prose(where.get("description", "")))
        for where in call.get("parameters", ())
    ]
    for kind, content in call.get("requestBody", {}).get("content", {}).items():
        for name, value in _fields(content["schema"], openapi).items():
            rows.append((f"{escape(kind)} <code>{escape(name)}</code>", _prose(value.get("description", ""))))
    for status, answer in sorted(call["responses"].items()):
        schemas = [content["schema"] for content in answer.get("content", {}).values() if "schema" in content]
        names = ", ".join(f"<code>{escape(name)}</code>" for name in {n for s in schemas for n in _fields(s, openapi)})
        note = _prose(answer.get("description", "")) if int(status) >= 400 else names or _prose(answer["description"])
        rows.append((escape(status), note))
    table = "".join(f"<tr><th scope=row>{name}</th><td>{note}</td></tr>" for name, note in rows)
    about = _prose(call.get("description", ""))
    return f"<section><h2><b>{method.upper()} {escape(path)}</b></h2><p>{about}</p><table>{table}</table></section>\n"


def _fields(schema: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    """The fields of an object, or of the objects of a list; nothing for anything else."""
    schema = schema.get("items", schema)
    if "$ref" in schema:
        schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("properties", {})


def _prose(text: str) -> str:
    """Escaped, with `code` set as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
