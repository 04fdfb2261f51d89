"""A model that is cut up among processes -> its weights, whole, one after another on every process.

So no process holds more than one of them beside its part: all at once they would be the model that was too large for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn


class Whole(Mapping[str, Tensor]):
    """The weights and buffers of a model, each made whole by ``gathered`` when it is asked for. All ranks must ask for the same
    ones in the same order."""

    def __init__(self, model: nn.Module, gathered: Callable[[Tensor], Tensor]) -> None:
        self._parts: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._gathered = gathered

    def __getitem__(self, name: str) -> Tensor:
        return self._gathered(self._parts[name])

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def on_host(self, keep: bool) -> dict[str, Tensor]:
        """All of them on the host, one that has two names once; nothing where they are not to be kept."""
        found: dict[int, Tensor] = {}
        for name, part in self._parts.items():
            if id(part) not in found:
                whole = self[name]
                found[id(part)] = whole.cpu() if keep else whole.new_empty(0)
        return {name: found[id(part)] for name, part in self._parts.items()} if keep else {}


def gathered_by_zero(part: Tensor) -> Tensor:
    """Of a weight that DeepSpeed's ZeRO-3 cut up; each process has its part again after."""
    import deepspeed

    if not hasattr(part, "ds_id"):
        return part.detach()
    with deepspeed.zero.GatheredParameters([part]):
        return part.detach().clone()
