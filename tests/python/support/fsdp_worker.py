"""One of two processes that train three steps with FSDP2 and save Adam's state: whole,
as optimizer.bin, and sharded, as accelerate does."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

folder = Path(sys.argv[1])
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(3):
    generator = torch.Generator().manual_seed(2 * step + dist.get_rank())
    model(torch.randn(4, 7, generator=generator)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()

sharded = get_optimizer_state_dict(model, optimizer)
dcp.save({"optimizer": sharded}, checkpoint_id=folder / "sharded" / "optimizer_0")
options = StateDictOptions(full_state_dict=True, cpu_offload=True)
whole = get_optimizer_state_dict(model, optimizer, options=options)
if dist.get_rank() == 0:
    (folder / "whole").mkdir()
    torch.save(whole, folder / "whole" / "optimizer.bin")
    torch.save(whole["state"], folder / "expected.pt")
dist.destroy_process_group()
