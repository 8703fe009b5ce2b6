"""Dense and convolutional layers.

`parametrization="standard"` draws the kernel from `kernel_init`; "ntk" draws it from
N(0, 1) and divides the inputs by √fan_in (Jacot et al. 2018; no further gain). Biases
begin at zero and are not scaled. With a `dtype` the layer multiplies in that type;
without one, in the type that its inputs and parameters promote to.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Dense(nn.Dense):
    """A dense layer x W + b: nn.Dense with these defaults and parametrizations."""

    kernel_init: Callable = nn.initializers.he_normal()
    param_dtype: Any = float  # of the width that jax is set to
    parametrization: str = "standard"

    def __post_init__(self):
        self.kernel_init = _kernel_init(self)
        super().__post_init__()

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return super().__call__(_scale(self, inputs, inputs.shape[-1]))


class Conv(nn.Module):
    """A convolution of [n, h, w, c] by an odd `size`, padded as torch pads it.

    Padding is (size − 1)/2 on every side, so stride 2 takes the pixels 0, 2, 4, …
    `form="direct"` is XLA's convolution. "patches" copies the shifted images side by
    side and multiplies once: the same sums, far faster on a CPU, where XLA is slow with
    kernels under vmap and with their gradients inside loops. "auto" takes it there.
    """

    features: int
    size: int = 3
    stride: int = 1
    form: str = "auto"
    kernel_init: Callable = kaiming_fan_out
    use_bias: bool = False
    parametrization: str = "standard"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = self.form
        if form == "auto":
            form = "patches" if jax.default_backend() == "cpu" else "direct"
        if form not in _FORMS:
            allowed = ", ".join(["auto", *_FORMS])
            raise ValueError(f"form={form!r} is none of {allowed}")
        shape = (self.size, self.size, x.shape[-1], self.features)
        x = _scale(self, x, math.prod(shape[:-1]))
        kernel = self.param("kernel", _kernel_init(self), shape)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = _FORMS[form](x, kernel, self.stride)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y, bias = promote_dtype(y, bias, dtype=self.dtype)
        return y + jnp.broadcast_to(bias, y.shape)


def _kernel_init(layer: Dense | Conv) -> Callable:
    if layer.parametrization not in ("standard", "ntk"):
        raise ValueError(
            f"parametrization={layer.parametrization!r} is none of standard, ntk"
        )
    ntk = layer.parametrization == "ntk"
    return nn.initializers.normal(1.0) if ntk else layer.kernel_init


def _scale(layer: Dense | Conv, x: jax.Array, fan_in: int) -> jax.Array:
    return x * fan_in**-0.5 if layer.parametrization == "ntk" else x


def _direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size, _, channels, features = kernel.shape
    pad = (size - 1) // 2
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifted = [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(size)
        for j in range(size)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    rows = patches.reshape(-1, size * size * channels)
    y = rows @ kernel.reshape(-1, features)
    return y.reshape(*patches.shape[:3], features)


_FORMS = {"direct": _direct, "patches": _patches}
