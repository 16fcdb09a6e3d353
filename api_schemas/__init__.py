"""The contract of emascale, and its client: `from api_schemas import Client`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api_schemas.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """The client on demand: whoever needs the contract alone loads no HTTP library."""
    if name == "Client":
        from api_schemas.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
