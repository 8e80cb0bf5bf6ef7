"""What the launcher says about this process's place: torchrun and deepspeed by RANK, srun by SLURM_PROCID.

All take the same road: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, which srun's variables are
translated into. A single process needs none of them. A half of them is an error: guessing the other half
would make a process wait for others that do not exist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from seqtok_core.foundation.errors import ConfigError

_FIRST_PORT, _PORTS = 12_000, 20_000  # below the ports that Linux gives to outgoing connections (32768 and up)
_HOST = re.compile(r"(?P<prefix>[^\[,]+)(\[(?P<numbers>[^\]]+)\])?(?P<suffix>[^\[,]*)")


@dataclass(frozen=True)
class Place:
    """`variables` is what torch's env:// and DeepSpeed read; empty for a single process without a launcher."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    launcher: str = "none"  # none, torchrun, deepspeed or another that sets RANK, srun
    variables: Mapping[str, str] = field(default_factory=dict)


def read_place(environment: Mapping[str, str] | None = None) -> Place:
    """Raises ConfigError, in one sentence, when variables are missing or contradict each other."""
    env = os.environ if environment is None else environment
    if "RANK" in env or "WORLD_SIZE" in env:
        return _from_ranks(env)
    if "SLURM_STEP_ID" in env or "SLURM_STEPID" in env:
        return _from_slurm(env)
    if _number(env, "SLURM_NTASKS", 1) > 1:
        raise ConfigError(
            f"SLURM_NTASKS={env['SLURM_NTASKS']}, but this process was not started by srun; write `srun seqtok …` "
            "or `torchrun …` in the job, or unset SLURM_NTASKS to train in one process"
        )
    if _number(env, "LOCAL_RANK", 0) > 0:
        raise ConfigError(_half("LOCAL_RANK", ["RANK", "WORLD_SIZE"]))
    return Place()


def _from_ranks(env: Mapping[str, str]) -> Place:
    size = _number(env, "WORLD_SIZE", 1)
    wanted = ["RANK", "WORLD_SIZE"]
    if size > 1:
        wanted += ["LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"]
    missing = [name for name in wanted if name not in env]
    if missing:
        raise ConfigError(_half(", ".join(n for n in wanted if n in env), missing))
    rank, local_rank = _number(env, "RANK", 0), _number(env, "LOCAL_RANK", 0)
    if not 0 <= rank < size:
        raise ConfigError(f"RANK={rank} does not lie below WORLD_SIZE={size}; start under torchrun")
    if not 0 <= local_rank < size:
        raise ConfigError(f"LOCAL_RANK={local_rank} does not lie below WORLD_SIZE={size}; start under torchrun")
    launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in env else "RANK"
    return Place(rank, size, local_rank, launcher, {name: env[name] for name in wanted})


def _from_slurm(env: Mapping[str, str]) -> Place:
    """A task of srun; `sbatch` and `salloc` alone set some of these too, but no step."""
    size = _number(env, "SLURM_STEP_NUM_TASKS", _number(env, "SLURM_NTASKS", 1))
    if size == 1:
        return Place(launcher="srun")
    missing = [name for name in ("SLURM_PROCID", "SLURM_LOCALID") if name not in env]
    if missing:
        raise ConfigError(_half("SLURM_STEP_ID", missing))
    rank, local_rank = _number(env, "SLURM_PROCID", 0), _number(env, "SLURM_LOCALID", 0)
    if not 0 <= rank < size:
        raise ConfigError(f"SLURM_PROCID={rank} does not lie below the step's {size} tasks")
    address = env.get("MASTER_ADDR") or _first_node(env)
    job, step = _number(env, "SLURM_JOB_ID", 0), _number(env, "SLURM_STEP_ID", _number(env, "SLURM_STEPID", 0))
    port = env.get("MASTER_PORT") or str(_FIRST_PORT + (job + 1009 * step) % _PORTS)
    return Place(
        rank,
        size,
        local_rank,
        "srun",
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(local_rank),
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
        },
    )


def _first_node(env: Mapping[str, str]) -> str:
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if env.get(name):
            return first_host(env[name])
    raise ConfigError("SLURM_JOB_NODELIST is not set, so no node is known to meet on; set MASTER_ADDR in the job")


def first_host(nodes: str) -> str:
    """First of SLURM's node list: "gpu[07-09,12],login" -> "gpu07"."""
    match = _HOST.match(nodes.strip())
    if match is None:
        raise ConfigError(f"cannot read the node list {nodes!r}; set MASTER_ADDR in the job")
    number = re.split(r"[-,]", match["numbers"])[0] if match["numbers"] else ""
    return match["prefix"].strip() + number + match["suffix"].strip()


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(env.get(name, default))
    except ValueError:
        raise ConfigError(
            f"{name}={env[name]!r} must be a whole number; start under torchrun, deepspeed or srun"
        ) from None


def _half(present: str, missing: list[str]) -> str:
    return (
        f"{present} is set but not {', '.join(missing)}: start under torchrun, deepspeed or srun, which set them "
        f"all, or unset {present} to train in one process"
    )
