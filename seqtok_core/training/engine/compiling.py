"""torch.compile of the objective, and what a machine lacks for it."""

from __future__ import annotations

import os

import torch
from torch import nn

from seqtok_core.foundation.errors import ConfigError


def compile_module(module: nn.Module) -> None:
    """Compile in place: names of parameters stay. Raises ConfigError without a C++ compiler.

    Inductor writes C++ on CPU, and on a GPU Triton builds its launcher with the same compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError, RuntimeError):
        wanted = os.environ.get("CXX", "g++")
        raise ConfigError(
            f"`compile` needs a C++ compiler ({wanted} was not found): install g++, name yours in CXX, or set "
            "`compile=false`"
        ) from None
    torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)  # batches differ in length
    module.compile()
