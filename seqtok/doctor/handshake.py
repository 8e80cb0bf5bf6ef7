"""Two processes on this machine shake hands, as a training of several processes does at its start.

`python -m seqtok.doctor.handshake` is what each of the two runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from seqtok.doctor.finding import Finding, ok, problem

_SECONDS = 90


def network() -> list[Finding]:
    """NCCL where there are two GPUs, gloo elsewhere."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "seqtok.doctor.handshake"]
    began = time.monotonic()
    way = "check the firewall and /etc/hosts; set GLOO_SOCKET_IFNAME / NCCL_SOCKET_IFNAME to the right interface"
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment())
    try:
        said, complaint = child.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        child.terminate()  # torchrun ends its children
        child.communicate()
        return [problem("network", f"two processes did not meet within {_SECONDS} s", way)]
    if child.returncode:
        reasons = [line.strip() for line in complaint.splitlines() if "Error" in line]
        return [problem("network", f"two processes did not meet ({(reasons or ['no message'])[-1][:160]})", way)]
    return [ok("network", f"two processes met over {said.split()[-1]} in {time.monotonic() - began:.0f} s")]


def _environment() -> dict[str, str]:
    """Without what another launcher left, which torchrun would hand on."""
    left = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {"OMP_NUM_THREADS": "1", **{k: v for k, v in os.environ.items() if k not in left}}


def main() -> None:
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    on_gpu = torch.cuda.device_count() >= 2
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=_SECONDS // 2))
    total = torch.ones(1, device=device)
    dist.all_reduce(total)
    dist.barrier()
    dist.destroy_process_group()
    if int(total) != 2:
        raise SystemExit(f"Error: the sum over two processes is {int(total)}")
    if rank == 0:
        print(backend)


if __name__ == "__main__":
    main()
