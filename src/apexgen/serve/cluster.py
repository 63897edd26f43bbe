"""The endpoint on several machines, or GPUs: Ray Serve keeps the replicas, each a model with batches of its own.

    serve run apexgen.serve.cluster:endpoint folder=/where/each/machine/has/it replicas=2

https://docs.ray.io/en/latest/serve/
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from apexgen.config import Table

if TYPE_CHECKING:
    from fastapi import FastAPI


class Cluster(Table):
    """What `serve run` takes as key=value: the options of `apexgen serve`, replicas, and what each of them holds."""

    folder: str  # where every machine has it, or "scenes"
    lora: Path | None = None
    checkpoint: str = "latest"  # of a run
    replicas: int = Field(1, ge=1)  # Ray places as many on a machine as it has these for
    gpus: float = Field(0, ge=0)
    cpus: float = Field(1, ge=0)
    batch: int = Field(16, ge=1)
    queue: int = Field(128, ge=1)  # requests that may wait before the replicas, and pictures in each
    timeout: float = Field(60, gt=0, le=86400)
    teacher_steps: int = Field(50, ge=1, le=100)
    guidance: float = Field(3.0, ge=0)


def endpoint(cluster: Cluster) -> Any:
    """The application that Ray Serve runs; each replica opens a model of its own."""
    from ray import serve

    def build() -> "FastAPI":
        from apexgen.backbones.quiet import silence_libraries
        from apexgen.drawer import open_model
        from apexgen.serve.api import Api
        from apexgen.serve.server import make_offer, warm_up

        silence_libraries()
        model = open_model(cluster.folder, cluster.lora, checkpoint=cluster.checkpoint)
        offer = make_offer(
            model, cluster.teacher_steps, cluster.guidance, cluster.batch, cluster.queue, cluster.timeout
        )
        warm_up(offer)
        return Api(offer).app

    return serve.deployment(
        serve.ingress(build)(),
        name="apexgen",
        num_replicas=cluster.replicas,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        max_ongoing_requests=2 * cluster.batch,  # one at work and the next; the rest waits for whoever is free
        max_queued_requests=cluster.queue,
        graceful_shutdown_timeout_s=cluster.timeout + 1,
        health_check_period_s=1,
    ).bind()
