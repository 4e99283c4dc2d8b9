"""The address of an endpoint or a signer: what of it may be shown, and when two are one."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def hide_secrets(url: str) -> str:
    """Return an address's scheme, host and port: the rest may be a password or a provider's key."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "[hidden]"
    if not host:
        return "[hidden]"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def name_endpoints(urls: Sequence[str]) -> list[str]:
    """Return what messages call these endpoints: what may be shown, with a number where that is the same."""
    shown = [hide_secrets(url) for url in urls]
    return [
        f"{name} (number {number})" if shown.count(name) > 1 else name
        for number, name in enumerate(shown, start=1)
    ]


def drop_doubles(urls: Sequence[str]) -> list[str]:
    """Return these addresses, of those that lead to the same place only the first."""
    places: dict[object, str] = {}
    for url in urls:
        places.setdefault(_find_place(url), url)
    return list(places.values())


def _find_place(url: str) -> object:
    # Neither another user nor another way to spell the address makes it another endpoint.
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return url
    return parts.scheme, (parts.hostname or "").rstrip("."), port, parts.path.rstrip("/"), parts.query
