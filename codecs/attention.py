"""The transformer block of `enerv`: every place of a small feature map looks at every other.

Vaswani et al.: Attention Is All You Need (NeurIPS 2017), sections 3.2.1, 3.2.2 and 3.3. Written out in products, not
with a fused kernel, of which torch has several that do not round alike.
"""

from __future__ import annotations

from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with several heads over the places of a map; (B, channels, h, w) -> the same shape."""

    def __init__(self, channels: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.asked = nn.Conv2d(channels, 3 * heads * head_width, 1, bias=False)
        self.softmax = nn.Softmax(dim=-1)  # a module, so that its N * N values are counted (`sizing.network_cost`)
        self.out = nn.Conv2d(heads * head_width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the values of all places, N = h * w, by how well keys meet queries."""
        parts = self.asked(x).flatten(2).unflatten(1, (3, self.heads, self.head_width))
        queries, keys, values = parts.unbind(1)  # (B, heads, head_width, N) each
        weights = self.softmax(queries.transpose(2, 3) @ keys / self.head_width**0.5)  # (B, heads, N, N)
        mixed = values @ weights.transpose(2, 3)  # (B, heads, head_width, N)
        out: Tensor = self.out(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))
        return out


class TransformerBlock(nn.Module):
    """Attention, then a perceptron for each place alone, both added to what came in; no normalisation.

    (B, channels, h, w) -> the same shape.
    """

    def __init__(self, channels: int, heads: int, head_width: int, hidden_width: int) -> None:
        super().__init__()
        self.attention = Attention(channels, heads, head_width)
        self.perceptron = nn.Sequential(
            nn.Conv2d(channels, hidden_width, 1), nn.GELU(), nn.Conv2d(hidden_width, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what all places say, then what the place itself makes of it."""
        x = x + self.attention(x)
        out: Tensor = x + self.perceptron(x)
        return out
