"""A network whose every process holds a part of each weight: torch's FSDP2, with all that is as large as the weights.

What is made from a sharded weight is sharded like it: its gradient, the optimizer's moments, the average, the
teacher's copy. FSDP2 gathers a block's weights just before the block runs, from the shards that are then in place, and
again in the backward pass. So a velocity under other weights, which elsewhere is a `functional_call`, is here the
network while its shards and theirs have changed places: nothing is sent for it and nothing more is held.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks that a transformer is a stack of, in its order; each runs once a forward."""
    stacks = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    return [block for stack in stacks for block in stack if any(True for _ in block.parameters())]


def shard(network: nn.Module, device: torch.device, offload: bool = False) -> None:
    """Shard all weights, to be trained, over the processes, block by block; they move to the device as they are cut.

    They are the first process's: the others' network may be empty, its weights on the meta device.
    offload: the shards, their gradients and the optimizer stay in the processor's memory.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    # Nothing here changes the network's output in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    network.requires_grad_(True)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    weights = network.state_dict()
    policy = CPUOffloadPolicy(pin_memory=device.type != "cpu") if offload else OffloadPolicy()
    for module in [*repeated_blocks(network), network]:
        # The root too lets go of its weights after a forward: the next may run under others.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, offload_policy=policy)
    network.load_state_dict(_sent(weights, network.state_dict(), device, offload), assign=True)


def _sent(weights: dict[str, Tensor], cut: dict[str, Tensor], device: torch.device, offload: bool) -> dict[str, Tensor]:
    """This process's part of the first one's weights, of which the others hold no more than one whole at a time."""
    parts: dict[str, Tensor] = {}
    for name, own in cut.items():
        given = weights.pop(name)
        if torch.distributed.get_rank() > 0:
            given = torch.empty(own.shape, dtype=own.dtype)
        if isinstance(own, DTensor):
            part = distribute_tensor(given, own.device_mesh, own.placements)
            parts[name] = part.cpu() if offload else part
        else:  # a table that does not train
            parts[name] = given.to(device)
            torch.distributed.broadcast(parts[name], 0)
    return parts


@contextmanager
def reduced_once(network: Any) -> Iterator[None]:
    """Inside, backward passes leave gradients whole in every process; after them all each block's is averaged and cut.

    FSDP2 would do so in a last backward that it is told of. Here none is known to be the last before it is done, as an
    objective's terms come one by one and some have no gradient.
    """
    from torch.distributed.fsdp import fully_shard

    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)
    # What FSDP2 does after a backward, by the names that torch.distributed.pipelining calls it by: it has no others.
    root = fully_shard.state(network)
    for state in root._state_ctx.all_states:
        if state._fsdp_param_group is not None:
            state._fsdp_param_group.post_backward()
    root._root_post_backward_final_callback()


class Exchanged:
    """A sharded network run with other shards in place of its own; without a graph, which would gather the wrong ones.

    Raises ValueError where a gradient is to flow through it.
    """

    def __init__(self, network: Any, weights: dict[str, Tensor]) -> None:
        self.network, self.weights, self.config = network, weights, network.config

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        given = [*inputs, *options.values()]
        if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in given):
            raise ValueError('no gradient flows through sharded weights; write train.parallel = "ddp"')
        with torch.no_grad(), _exchanged(dict(self.network.named_parameters()), self.weights):
            return self.network(*inputs, **options)


@contextmanager
def _exchanged(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[None]:
    _swap(own, other)
    try:
        yield
    finally:
        _swap(own, other)


@torch.no_grad()
def _swap(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    for name, tensor in other.items():
        ours, theirs = _local(own[name]), _local(tensor)
        kept = ours.clone()
        ours.copy_(theirs)
        theirs.copy_(kept)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of a tensor only."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of a sharded one every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same in every process, sharded as another is, or as it is; nothing is sent."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
