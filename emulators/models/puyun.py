"""PuYun: patches of two known states through blocks of large-kernel attention; all convolutions.

    x = norm(W [state(t - 1), state(t)] patch);   x <- blocks(x);   fields = W' x

Blocks are those of VAN, see emulators.layers.attention.large_kernel. Zhu et al. 2024, arXiv 2409.02123. After the
paper, whose code is not published; not parity-tested, but for the blocks, which Met2Net has too. Left open there, and
chosen here: width, depth and kernels (VAN's), a norm over channels after the patches, recovery by one linear map of
each token, the clock as forcing fields, the padding. Its cascade is two of it, one for five days and one fine-tuned for
later lead times (`emul forecast cascade=`). Its loss is not known; FuXi's is the mean absolute error (loss=[mae]).
"""

from __future__ import annotations

from torch import Tensor, nn

from emulators.layers.attention.large_kernel import LargeKernelBlock
from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import drop_path_rates
from emulators.layers.convolution import Edges, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "2",
    "step": "timestep",
    "grid": "any; patches, others padded",
    "parity": "none; its blocks",
}


class PuYun(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); published with history 2.

    patch: rows and columns of a token. embed: channels of a token. depth: number of blocks. mlp_ratio: hidden channels
    of the MLPs as a multiple of embed. reach, dilation: those of the large kernels, in tokens. drop_path: rate of
    dropped residual paths in the last block, growing linearly from 0 in the first. inner_edges: padding of convolutions
    on tokens, see emulators.layers.convolution. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 128,
        depth: int = 8,
        mlp_ratio: float = 4.0,
        reach: int = 21,
        dilation: int = 3,
        drop_path: float = 0.0,
        inner_edges: str | None = None,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"Expected a depth of at least 1 block; got {depth}.")
        self.patch = patch, patch
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.embedding = PatchEmbedding(world.input_channels, embed, self.patch)
        self.norm = nn.LayerNorm(embed)
        rim = Edges(world.lat_lon, inner_edges).coarser()
        self.blocks = nn.Sequential(
            *(
                LargeKernelBlock(embed, rim, mlp_ratio=mlp_ratio, reach=reach, dilation=dilation, drop_path=rate)
                for rate in drop_path_rates(drop_path, depth)
            )
        )
        self.head = nn.Linear(embed, world.output_channels * patch**2)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        tokens = self.norm(self.embedding(self.frame.inward(fields, self.mirror)))
        x = self.blocks(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.frame.outward(unpatched(self.head(x), self.patch))
