"""Listening: the port before the models are loaded, the address when they are."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import webbrowser

import typer

from seqtok.explorer.found import Explored
from seqtok.explorer.guard import is_loopback
from seqtok.explorer.studio import Studio
from seqtok_core.foundation.errors import ConfigError


def serve(parts: Explored, host: str, port: int, open_page: bool) -> None:
    """Answer until interrupted. Raises ConfigError where the port is taken or the host is not this machine's."""
    import uvicorn

    from seqtok.explorer.app import build_app

    with _listening(host, port) as listener:
        app = build_app(Studio.load(parts), parts.report, host)
        for note in parts.notes:
            typer.echo(note, err=True)
        if not is_loopback(host):
            typer.echo(
                f"{host}: whoever reaches this machine can use these models and see the held-out pictures; there is no "
                "password",
                err=True,
            )
        address = _address_of(host, listener.getsockname()[1])
        typer.echo(f"explore {parts.tokenizer} at {address} (Ctrl-C ends)")
        if open_page and _has_screen():
            webbrowser.open(address)  # the port listens already: the page waits until it is answered
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{host}:{port}: {reason}; choose another with --port, or --host") from None


def _address_of(host: str, port: int) -> str:
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reached}:{port}/"


def _has_screen() -> bool:
    """Without one, a browser of the terminal would take the place of the explorer's own lines."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
