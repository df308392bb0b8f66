"""From tokens and conditions to vectors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prod9.fsq import FSQ


class TokenEmbedding(nn.Module):
    """A vector per code, plus one per level of each FSQ channel; a learned one for the mask.

    Codes are points on a lattice: neighbours mean nearly the same. The vectors of the levels
    (sum(L_i) of them, each seen in every batch) show this from the first step; the codes' own
    vectors start at zero and add what is particular to a code. The mask is row V, the codebook
    size.
    """

    _rows: Tensor

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        fsq = FSQ(levels)
        self.codes = nn.Embedding(fsq.codebook_size + 1, dim)
        self.levels = nn.Embedding(sum(levels), dim)
        nn.init.zeros_(self.codes.weight)
        nn.init.normal_(self.codes.weight[-1], std=0.5)
        nn.init.normal_(self.levels.weight, std=0.5)
        self.register_buffer("_rows", fsq.level_rows(), persistent=False)

    def table(self) -> Float[Tensor, "v_plus_1 dim"]:
        """Vectors of all codes and, last, of the mask."""
        # Not weight[rows]: its gradient adds up in whatever order the threads come.
        by_level = nn.functional.embedding(self._rows, self.levels.weight).sum(1)  # (V, dim)
        mask = torch.zeros_like(by_level[:1])
        return self.codes.weight + torch.cat([by_level, mask])


class SourceEmbedding(nn.Module):
    """The sum over the source channels of a vector for each cell's token.

    All channels use one codebook, so they share the targets' table; each has its own linear map.
    Cells whose token is the mask id (not known) add nothing.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(channels, dim, dim) * dim**-0.5)
        self.names = nn.Parameter(torch.zeros(channels, 1, dim))

    def forward(
        self, sources: Int64[Tensor, "b c gd gh gw"], table: Float[Tensor, "v_plus_1 dim"]
    ) -> Float[Tensor, "b gd gh gw dim"]:
        # Mapping the table, not the cells: a codebook is smaller than a batch of grids.
        mapped = table @ self.maps + self.names  # (C, V + 1, dim)
        known = torch.ones_like(table[:, :1])
        known[-1] = 0
        rows = (mapped * known).flatten(0, 1)
        offsets = torch.arange(len(self.maps), device=sources.device) * len(table)
        shifted = sources + offsets.view(1, -1, 1, 1, 1)
        return nn.functional.embedding(shifted, rows).sum(1)


class CovariateEmbedding(nn.Module):
    """The sum over the covariates of a vector each; a learned one stands for "not given".

    A category has its own vector. A number x adds (x - mean) / std times a learned vector to
    another one.

    Args:
        dim: of the vectors.
        covariates: categories (0 for a number), mean and standard deviation of each.
    """

    _scale: Tensor

    def __init__(self, dim: int, covariates: Sequence[tuple[int, float, float]]) -> None:
        super().__init__()
        self.categories = [count for count, _, _ in covariates]
        # The last row of each table: not given.
        self.tables = nn.ModuleList(
            nn.Embedding((count or 1) + 1, dim) for count in self.categories
        )
        self.slopes = nn.Parameter(torch.randn(len(covariates), dim))
        scale = torch.tensor([[mean, std] for _, mean, std in covariates])
        self.register_buffer("_scale", scale, persistent=False)

    def forward(self, values: Float[Tensor, "b v"]) -> Float[Tensor, "b dim"]:
        given = ~values.isnan()
        values = values.nan_to_num()
        result = torch.zeros_like(self.slopes[0]).expand(len(values), -1)
        for index, (count, table) in enumerate(zip(self.categories, self.tables, strict=True)):
            value, known = values[:, index], given[:, index]
            row = value.long() if count else torch.zeros_like(value, dtype=torch.long)
            result = result + table(torch.where(known, row, count or 1))
            if not count:
                mean, std = self._scale[index]
                standard = torch.where(known, (value - mean) / std, 0.0)
                result = result + standard[:, None] * self.slopes[index]
        return result
