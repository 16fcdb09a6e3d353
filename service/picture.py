"""The cluster as it changes: what GET /cluster answers once, as a stream of what is new in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi.sse import ServerSentEvent

from api_schemas.views import ClusterChanges, ClusterView
from service.looks import repeated


async def stream(look: Callable[[], Awaitable[ClusterView]], poll_s: float) -> AsyncIterator[ServerSentEvent]:
    """First the whole picture, then every change of it. Never ends; a stream that broke off begins again."""
    told: ClusterView | None = None
    async for view in repeated(look, poll_s):
        news = changes(told, view)
        told = view
        if news is not None:
            yield ServerSentEvent(raw_data=news.model_dump_json())


def changes(told: ClusterView | None, view: ClusterView) -> ClusterChanges | None:
    """What is new since it was told so; None: nothing. That it was seen again is not."""
    before = {node.id: node for node in told.nodes} if told else {}
    nodes = [node for node in view.nodes if before.get(node.id) != node]
    ids = [node.id for node in view.nodes]
    news = ClusterChanges(
        connected=view.connected,
        seen_at=view.seen_at,
        nodes=nodes,
        ids=ids if told is None or ids != list(before) else None,
        queue=view.queue if told is None or view.queue != told.queue else None,
    )
    quiet = told is not None and view.connected == told.connected
    return None if quiet and not nodes and news.ids is None and news.queue is None else news
