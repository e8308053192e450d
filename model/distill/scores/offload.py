"""Networks that stay in host memory and come to the device for their turn: whole, or block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Offload = Literal["none", "idle", "sequential"]
OFFLOADS: tuple[str, ...] = get_args(Offload)


def blocks_of(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that are called one after another: its children, and those of its lists."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        inner = {f"{name}.{k}": v for k, v in child.named_children()} if _is_list(child) else {name: child}
        found |= {key: part for key, part in inner.items() if _tensors(part)}
    return found


def bytes_of(module: nn.Module) -> int:
    """Of its parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in _tensors(module))


class Turns:
    """Hooks that bring parts of a network to a device for their forward pass, and drop them after it.

    The weights in host memory are the only ones kept: nothing is copied back, since nothing trains them.
    Gradients cannot be taken through a part that left, so this is for passes without a graph.
    """

    def __init__(self, module: nn.Module, device: torch.device, by_block: bool) -> None:
        """`by_block` divides the network by `blocks_of`; else it comes whole."""
        self.device = device
        self.parts = blocks_of(module) if by_block else {"": module}
        stray = {id(t) for _, t in _tensors(module)}
        stray -= {id(t) for part in self.parts.values() for _, t in _tensors(part)}
        if stray:
            raise ValueError(f"{type(module).__name__} has {len(stray)} tensors outside its blocks")
        self.here: list[str] = []
        """Parts that are on the device now."""
        self.log: list[tuple[str, ...]] = []
        """`here` after each arrival, of the last pass."""
        self.moved = 0
        """Bytes brought so far."""
        self._host: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._hooks: list[Any] = []
        module.to("cpu")
        for name, part in self.parts.items():
            self._host[name] = [(tensor, _pinned(tensor.data, device)) for _, tensor in _tensors(part)]
            self._leave(name)
            self._hooks += [
                part.register_forward_pre_hook(self._hook(self._arrive, name)),
                part.register_forward_hook(self._hook(self._leave, name), always_call=True),
            ]

    @staticmethod
    def _hook(act: Callable[[str], None], name: str) -> Callable[..., None]:
        return lambda *_: act(name)

    def _arrive(self, name: str) -> None:
        for tensor, host in self._host[name]:
            tensor.data = self._brought(host)
            self.moved += host.numel() * host.element_size()
        self.here.append(name)
        self.log.append(tuple(self.here))

    def _brought(self, host: Tensor) -> Tensor:
        return host.to(self.device, non_blocking=True)

    def _leave(self, name: str) -> None:
        for tensor, host in self._host[name]:
            tensor.data = host
        self.here = [other for other in self.here if other != name]

    def end(self) -> None:
        """Take the hooks away; the network stays in host memory."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory() if device.type == "cuda" else tensor
