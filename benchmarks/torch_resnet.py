"""The ResNets of `optsde.models` in torch: 3×3 stem, 1×1 shortcuts, a bias in the head.

torch is an argument, since it need not be installed.
"""

from collections.abc import Sequence
from typing import Any


def resnet(torch: Any, blocks: Sequence[int], width: int, bottleneck: bool) -> Any:
    """Returns the net for ten classes; with the same numbers as `models.ResNet`."""
    nn = torch.nn

    def convolved(into: int, out: int, size: int, stride: int = 1) -> Any:
        conv = nn.Conv2d(into, out, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out))

    class Block(nn.Module):
        """A block relu(shortcut(x) + norm(conv(… relu(norm(conv(x))))))."""

        def __init__(self, into: int, features: int, stride: int):
            super().__init__()
            layers = [(features, 3, stride), (features, 3, 1)]
            if bottleneck:
                ends = (features, 1, 1), (4 * features, 1, 1)
                layers = [ends[0], (features, 3, stride), ends[1]]
            self.out = layers[-1][0]
            parts, last = [], into
            for out, size, by in layers:
                parts += [convolved(last, out, size, by), nn.ReLU()]
                last = out
            self.body = nn.Sequential(*parts[:-1])
            same = into == self.out and stride == 1
            self.shortcut = nn.Identity() if same else convolved(into, last, 1, stride)

        def forward(self, x):
            return torch.relu(self.shortcut(x) + self.body(x))

    parts = [convolved(3, width, 3), nn.ReLU()]
    last = width
    for stage, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if stage and not number else 1
            parts.append(Block(last, width * 2**stage, stride))
            last = parts[-1].out
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*parts, pool, nn.Linear(last, 10))
