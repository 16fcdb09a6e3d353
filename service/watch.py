"""The watch on the cluster: which nodes it has, which recipes they know, and the picture that the API shows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from api_schemas.exchange import Departure
from api_schemas.views import ClusterView, Node, QueuedJob
from service.cluster import Cluster, ClusterError, ClusterUnreachable
from service.conversation import Pace
from service.roster import Roster

logger = logging.getLogger(__name__)


class Watch:
    """What is known of the cluster."""

    def __init__(self, roster: Roster, cluster: Cluster, pace: Pace) -> None:
        self.nodes: list[Node] = []
        self._roster = roster
        self._cluster = cluster
        self._pace = pace
        self._asked = asyncio.Event()  # the nodes were asked for their recipes: jobs can be submitted

    async def look(self) -> None:
        """See which nodes there are. Raises ClusterUnreachable."""
        try:
            async with asyncio.timeout(self._pace.answer):
                self.nodes = await self._cluster.nodes()
        except TimeoutError as error:
            raise ClusterUnreachable(f"The cluster has not answered for {self._pace.answer:g} s.") from error

    def departures(self) -> tuple[Departure, ...]:
        """The nodes that are to leave."""
        leaving = sorted((node for node in self.nodes if node.draining), key=lambda node: node.id)
        return tuple(Departure(node=node.id, address=node.address, by=node.drains_at) for node in leaving)

    async def keep_picture(self, queue: Callable[[], list[QueuedJob]]) -> None:
        """Look, and write down what changed; never returns. Raises ClusterUnreachable, having written that too."""
        await self._asked.wait()
        try:
            while True:
                await self._write(connected=True, queue=queue())
                await asyncio.sleep(self._pace.nodes)
                await self.look()
        except ClusterUnreachable:
            await self._write(connected=False, queue=queue())
            raise

    async def keep_catalogue(self) -> None:
        """Ask the nodes for their recipes, again whenever other nodes are there; never returns."""
        listed: set[str] = set()
        while True:
            nodes = {node.id for node in self.nodes}
            if nodes != listed and await self._list_recipes():
                listed = nodes
            self._asked.set()
            await asyncio.sleep(self._pace.nodes)

    async def _list_recipes(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.catalogue):
                recipes = await self._cluster.catalogue()
        except (ClusterError, TimeoutError) as error:
            logger.warning("The nodes do not list their recipes: %s", error, extra={"action": "catalogue_failed"})
            return False
        await asyncio.to_thread(self._roster.write_recipes, recipes)
        logger.info("%d recipes", len(recipes), extra={"action": "catalogue_written"})
        return True

    async def _write(self, *, connected: bool, queue: list[QueuedJob]) -> None:
        view = ClusterView(connected=connected, seen_at=self._roster.now(), nodes=self.nodes, queue=queue)
        await asyncio.to_thread(self._roster.write_cluster, view)
