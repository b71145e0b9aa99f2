"""What the server answers when it will not do something: one JSON object, and a status that says whose turn it is."""

import json
from collections.abc import Mapping

from starlette.responses import Response


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status, 400 to 599.
        message: given → required → what to do.
        headers: that belong to the status, such as Allow.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """``{"error": message}``, in ASCII, so that text that is no valid Unicode can be quoted."""
    body = json.dumps({"error": message}).encode()
    return Response(body, status, headers, media_type="application/json")
