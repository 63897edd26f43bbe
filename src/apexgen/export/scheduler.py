"""The stock scheduler that takes our steps."""

from typing import Any

from apexgen.backbones.base import Backbone


def stock_scheduler(backbone: Backbone, renoises: bool) -> Any:
    """The one of a student of this backbone; a renoising student's draws fresh noise between its steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler

    kind = FlowMatchLCMScheduler if renoises else FlowMatchEulerDiscreteScheduler
    return kind(**backbone.scheduler_config)
