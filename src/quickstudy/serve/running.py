"""The process: one listening socket, and a stop that answers everything that was accepted."""

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType

import uvicorn

from quickstudy.learner import Learner
from quickstudy.serve.app import create_app
from quickstudy.serve.guard import LOOPBACK
from quickstudy.serve.limits import Limits

_GRACE = 1.0  # seconds in which open connections may still send, each answer being the last of its connection
_PATIENCE = 60  # seconds until a stop gives up on answers that do not end


def serve(
    learner: Learner | str | Path,
    *,
    state: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    allow_hosts: Collection[str] = (),
    workers: int = 2,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; then answer what was accepted, and return.

    Args:
        learner, state, token, limits, workers: as for ``create_app``.
        host: the address to listen on; any other than loopback needs a token.
        port: 0 takes a free one.
        allow_hosts: further names by which the server may be called, as a reverse proxy passes them on. Without any,
            a server that is not on loopback may be called by all.
        started: called with an address at which this machine reaches it, once connections are accepted.

    Raises:
        ValueError: as ``create_app``; another address than loopback without a token; a port in use or not allowed.
    """
    with listen(host, port, token) as listener:
        shown, hosts = names(listener.getsockname()[0], allow_hosts)
        app = create_app(learner, state=state, token=token, limits=limits, hosts=hosts, workers=workers)
        config = uvicorn.Config(
            app,
            http="h11",  # whatever else is installed: what it does with a body that is not read is relied on
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        _Server(config, lambda: started(url)).run(sockets=[listener])


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: as ``serve`` says.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"--host {host} is no address of this machine ({error}): leave it out for loopback") from error
    family, kind, protocol, _, address = found[0]
    if token is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ValueError(
            f"--host {host} can be reached from other machines; required is a token for that: add --token, or set "
            "QUICKSTUDY_TOKEN, or leave --host out"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(
            f"{host} port {port} cannot be listened on ({getattr(error, 'strerror', None) or error}); required is a "
            "free port: stop what uses it, or choose another with --port (0 takes a free one)"
        ) from error
    return listener


def names(address: str, allow_hosts: Collection[str]) -> tuple[str, set[str] | None]:
    """The name by which this machine reaches an address that is listened on, and those by which anyone may call it.

    The second is None, which allows all, for an address that others can reach and without ``allow_hosts``.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_unspecified:
        address = "127.0.0.1" if found.version == 4 else "::1"
    shown = f"[{address}]" if ":" in address else address
    if not found.is_loopback and not allow_hosts:
        return shown, None
    return shown, {*LOOPBACK, shown, *(each.lower() for each in allow_hosts)}


class _Server(uvicorn.Server):
    """Uvicorn's server with a stop in three steps: no new connection; answers that end theirs; then the rest."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self.config.app.state.closing = True  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        await asyncio.sleep(_GRACE)  # a request that is on its way over an open connection is still answered
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:  # a second Ctrl-C waits for nothing, threads least of all
            os._exit(128 + sig)  # what was answered is on the disk
        self.should_exit = True
