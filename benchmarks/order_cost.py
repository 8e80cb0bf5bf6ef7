"""What an order costs: FLOPs of encoding and decoding one picture, the same for every order that is compared.

    python -m benchmarks.order_cost [CONFIG key=value…] [--out benchmarks/results/order_cost.json]

A tokenizer of each encoder, each given order and the pyramid is made from the config's sizes; the FLOPs of its products
are counted while it runs on one picture (two per multiply-add; norms and elementwise work are not counted) and stand
beside those of the Q-Former of the same config. TiTok's layers all read patches and queries, so it stands there a
second time, with the number of encoder layers whose FLOPs come nearest to the Q-Former's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_command, describe_machine
from seq_tokenizer import SeqTokenizer, TokenizerConfig
from seq_tokenizer.orders.grid import ORDERS
from seq_tokenizer.tokenizer import parameter_count
from seqtok.runs.settings import read_values
from seqtok_core.training.costs.flops import new_counter


def cost(config: TokenizerConfig) -> dict[str, int]:
    """FLOPs of one picture."""
    model = SeqTokenizer(config).requires_grad_(False)
    with new_counter() as encoding:
        latents = model.encode(torch.zeros(1, 3, config.image_size, config.image_size))
    with new_counter() as decoding:
        model.decode(latents)
    first, second = int(encoding.get_total_flops()), int(decoding.get_total_flops())
    return {
        "encode": first,
        "decode": second,
        "both": first + second,
        "parameters": parameter_count(config),
    }


def contestants(values: dict[str, Any]) -> dict[str, TokenizerConfig]:
    """Name -> settings; `values` are those of the sizes, without parts."""
    rms = {"kind": "rms"}
    parts: dict[str, dict[str, Any]] = {
        "qformer": {"encoder": {"kind": "qformer"}, "bottleneck": rms},
        "titok": {"encoder": {"kind": "titok"}, "bottleneck": rms},
    }
    parts |= {f"grid, {name}": {"encoder": {"kind": "grid", "order": name}, "bottleneck": rms} for name in ORDERS}
    parts["grid, pyramid"] = {"encoder": {"kind": "grid"}, "bottleneck": {"kind": "pyramid", **values["pyramid"]}}
    sizes = {key: value for key, value in values.items() if key not in ("encoder", "bottleneck", "text", "pyramid")}
    configs = {name: TokenizerConfig.parse({**sizes, **part}) for name, part in parts.items()}
    return configs


def like(config: TokenizerConfig, wanted: int) -> TokenizerConfig:
    """With as many encoder layers as come nearest to `wanted` FLOPs of encoding and decoding."""
    depths = [config.model_copy(update={"encoder_layers": n}) for n in range(1, 2 * config.encoder_layers)]
    return min(depths, key=lambda other: abs(cost(other)["both"] - wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="demo-tokenizer")
    parser.add_argument("values", nargs="*", help="key=value changes to the config")
    parser.add_argument("--scales", type=json.loads, help="of the pyramid, as [[1,1],[2,2]]; its own by default")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    values = read_values(args.config, args.values)["model"]
    values["pyramid"] = {} if args.scales is None else {"scales": args.scales}
    configs = contestants(values)
    costs = {name: cost(config) for name, config in configs.items()}
    usual = costs["qformer"]
    near = like(configs["titok"], usual["both"])
    costs[f"titok, {near.encoder_layers} layers"] = cost(near)
    for name, one in costs.items():
        shares = " ".join(f"{key} {one[key] / 1e6:8.3f} M ({one[key] / usual[key]:6.1%})" for key in one)
        print(f"{name:24} {shares}")
    if args.out:
        result = {"machine": describe_machine(), "command": describe_command("order_cost"), "flops": costs}
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
