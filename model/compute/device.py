"""Torch's settings of a CUDA device for as long as a command runs; a CPU is left as it is.

Three settings reach it: `optim.tf32`, `optim.deterministic`, and nothing else. Both are switches of the whole
process, so they are put back at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.config.settings import OptimSettings

#: cuBLAS adds up in one order only with a workspace of fixed size, read from the environment when it starts.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def device_settings(optim: OptimSettings) -> Iterator[None]:
    """TF32 products and deterministic kernels as `optim` has them, while the body runs.

    WorkError for an operation without a deterministic kernel, where these were asked for.
    """
    with ExitStack() as stack:
        if optim.tf32:
            stack.enter_context(_tf32())
        if optim.deterministic:
            stack.enter_context(_deterministic())
        yield


@contextmanager
def _tf32() -> Iterator[None]:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.allow_tf32 = before


@contextmanager
def _deterministic() -> Iterator[None]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic
    attention = cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    os.environ.setdefault(*_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    # Their backward passes add up in no fixed order; flash attention and plain products have one.
    cuda.enable_mem_efficient_sdp(False)
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        first = str(error).split(", but you set")[0].split("\n")[0]
        raise WorkError(f"optim.deterministic: {first}: leave --deterministic out") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, cudnn.deterministic = before[1:]
        cuda.enable_mem_efficient_sdp(attention[0])
        cuda.enable_cudnn_sdp(attention[1])
