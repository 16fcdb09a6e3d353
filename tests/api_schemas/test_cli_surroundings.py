"""On the command line: recipes, the cluster, and what the scaling rules make of a job."""

from __future__ import annotations

from typing import Any

import pytest

from api_schemas.previews import ScalingPreview, ScalingRow
from api_schemas.views import ClusterView, Node, Page, QueuedJob, RecipeInfo
from tests.api_schemas.answers import NOW, Answers
from tests.api_schemas.commands import emascale


def test_preview_of_an_optimizer(service: Answers) -> None:
    rows = [ScalingRow(kappa=kappa, values={"lr": 0.1 * kappa}, warnings=[]) for kappa in (1.0, 4.0)]
    service.add("POST", "/v1/scaling/preview", ScalingPreview(items=rows))

    arguments = ("--optimizer", "sgd", "--set", "optimizer.lr=0.1", "--kappa", "1", "--kappa", "4", "--set", "ema=0.99")
    shown = emascale(service, "preview", *arguments).stdout

    assert service.body() == {"optimizer": {"name": "sgd", "lr": 0.1}, "ema": 0.99, "kappas": [1, 4]}
    rows = [line.split() for line in shown.splitlines()]
    assert ["1", "0.1"] in rows
    assert ["4", "0.4"] in rows


BYOL = RecipeInfo(
    name="byol",
    summary="Learn features.",
    config_schema={
        "properties": {
            "depth": {"type": "integer", "minimum": 1, "maximum": 16, "default": 2, "description": "Layers."},
            "rate": {
                "anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"type": "null"}],
                "default": None,
            },
            "model": {"$ref": "#/$defs/Model"},
            "folder": {"type": "string"},
        },
        "required": ["folder"],
        "$defs": {"Model": {"enum": ["mlp", "cnn"]}},
    },
    needs_ema=True,
)


def test_recipes(service: Answers) -> None:
    service.add("GET", "/v1/recipes", Page(items=[BYOL]))
    (line,) = (line for line in emascale(service, "recipes").stdout.splitlines() if "byol" in line)
    assert "Learn features." in line


def test_no_recipes_yet(service: Answers) -> None:
    service.add("GET", "/v1/recipes", Page[RecipeInfo](items=[]))
    assert "not said yet" in emascale(service, "recipes").stdout


def test_the_settings_of_a_recipe(service: Answers) -> None:
    service.add("GET", "/v1/recipes/byol", BYOL)
    shown = emascale(service, "recipes", "byol").stdout
    assert shown.startswith("Learn features.")
    assert "a job of it must have `ema`" in shown
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines() if line.strip()}
    assert rows["depth"] == "2 integer from 1 to 16 Layers."
    assert rows["rate"] == "null number above 0 below 1 or null"
    assert rows["model"] == "null mlp, cnn"
    assert rows["folder"] == "required string"


def test_cluster(service: Answers) -> None:
    node = Node(id="f" * 56, address="127.0.0.2", alive=True, cpu=4, gpu=0, cpu_used=3, gpu_used=0)
    waiting = QueuedJob(id="1k114apr40046ss7", name="digits", priority=0, message="Waits for 2 workers.")
    service.add("GET", "/v1/cluster", ClusterView(connected=True, seen_at=NOW, nodes=[node], queue=[waiting]))

    shown = emascale(service, "cluster").stdout

    assert "127.0.0.2" in shown
    assert "3 of 4" in shown
    assert "Waits for 2 workers." in shown


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "alive"),
        ({"alive": False}, "gone"),
        ({"draining": True}, "to leave"),
        ({"draining": True, "drains_at": NOW}, f"to leave by {NOW:%H:%M:%S}"),
    ],
)
def test_cluster_tells_how_a_node_is(service: Answers, changes: dict[str, Any], state: str) -> None:
    about = {"id": "f" * 56, "address": "127.0.0.2", "alive": True, "cpu": 4, "gpu": 0, "cpu_used": 3, "gpu_used": 0}
    node = Node.model_validate(about | changes)
    service.add("GET", "/v1/cluster", ClusterView(connected=True, seen_at=NOW, nodes=[node], queue=[]))
    (line,) = (line for line in emascale(service, "cluster").stdout.splitlines() if "127.0.0.2" in line)
    assert f" {state} " in line
