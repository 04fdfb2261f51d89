"""The first layer of a vision tower, written as a convolution over single patches, becomes the one product that it is.

A patch is as large as the kernel. As a convolution each is an image of its own, which some versions of cuDNN and torch
compute thousands of times slower in bf16 than the product (pytorch issues 166643 and 174051, transformers issue 45750).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear


class PatchProduct(nn.Conv3d):
    """A convolution whose inputs are as large as its kernel."""

    def forward(self, input: Tensor) -> Tensor:
        if tuple(input.shape[2:]) != self.kernel_size:
            return super().forward(input)
        return linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def use_patch_products(model: nn.Module) -> None:
    """Where a layer may be one: weights, their names and their gradients stay what they are."""
    for module in model.modules():
        if type(module) is nn.Conv3d and _is_patchwise(module):
            module.__class__ = PatchProduct


def _is_patchwise(layer: nn.Conv3d) -> bool:
    flat = set(layer.padding) == {0} and set(layer.dilation) == {1} and layer.groups == 1
    return flat and layer.kernel_size == layer.stride
