"""medtokenizers' FSQ tokenizer and medlatents' ``DiscreteDiT``, as shipped and mended.

Both packages (0.1.2, MIT) import torchvision and medrs when they are imported whole; here bare
packages stand for them, so that only the files that are needed are read.

As shipped: ``D3PM`` with an absorbing state, trained on its hybrid loss and sampled by its
``sample``. What is wrong with it:

- the variational term compares what the network says of x_0 with the distribution of x_(t-1), so
  that the network learns to expect the mask token, which no volume has; sampling takes that share
  away from every token, tokens are revealed later than the schedule says, and whatever is left is
  drawn all at once in the last step, each without its neighbours;
- the cross-entropy counts the tokens that the network is shown, which cost nothing to predict;
- every step is a pass, also where it reveals nothing.

Mended, and nothing else: the loss is the cross-entropy of the hidden tokens alone, under MaskGIT's
arccos schedule; the mask token is never drawn; volumes are drawn by prod9's MaskGIT sampler with
the settings of the demo. The network is the same, with its rotary positions along the flattened
grid, its conditioning on the time (the hidden share) and on the class.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pipeline_training import CODES, SIDE, TOKENS, Rates, Rival
from prod9.config import SamplerConfig
from prod9.errors import Prod9Error
from prod9.masking import gamma
from prod9.sampling import sample

_BARE = (
    "medtokenizers",
    "medtokenizers.modules",
    "medtokenizers.networks",
    "medlatents",
    "medlatents.networks",
    "medlatents.diffusion",
)
LEVELS = [8, 8, 8]
GRID = (7, 7, 7)


def _imported(module: str) -> ModuleType:
    """Import one file of the packages without running any ``__init__``.

    Raises:
        Prod9Error: the packages are missing.
    """
    for package in _BARE:
        if package in sys.modules:
            continue
        parent, _, name = package.rpartition(".")
        if parent:
            folder = Path(sys.modules[parent].__path__[0]) / name
        else:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                raise Prod9Error(
                    f"{package} is not installed: pip install --no-deps --target FOLDER "
                    "medtokenizers medlatents, and put FOLDER into PYTHONPATH."
                )
            folder = Path(spec.origin).parent
        bare = ModuleType(package)
        bare.__path__ = [str(folder)]
        bare.__spec__ = ModuleSpec(package, None, is_package=True)
        sys.modules[package] = bare
    return importlib.import_module(module)


class Shipped(Rival):
    """DiscreteDiT with D3PM."""

    name = "medlatents"
    rates = Rates(1e-3, 1e-3)
    timesteps = 100
    """1000 by default, each of them a pass: ten times as long to draw."""
    width, channels = 192, 16

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.network: Any = _imported("medlatents.networks.diffusion_transformer").DiscreteDiT
        d3pm: Any = _imported("medlatents.diffusion.d3pm").D3PM
        self.diffusion = d3pm(CODES, self.timesteps, device=torch.device("cpu"))
        self.tokenizer: Any = _imported("medtokenizers.networks.discrete").DiscreteTokenizer

    def settings(self) -> dict[str, object]:
        return {
            "tokenizer": {"channels": self.channels, "channels_mult": [1, 2, 4], "levels": LEVELS},
            "hidden_size": self.width,
            "depth": 6,
            "timesteps": self.timesteps,
        }

    def first(self) -> nn.Module:
        return self.tokenizer(
            dim=3,
            z_channels=64,
            embedding_dim=len(LEVELS),
            channels=self.channels,
            channels_mult=(1, 2, 4),
            num_res_blocks=1,
            resolution=SIDE,
            spatial_compression=4,
            quantizer="FSQ",
            levels=LEVELS,
        )

    def first_loss(self, network: nn.Module, volumes: Tensor) -> Tensor:
        found = network(volumes)  # FSQ has no loss of its own
        return F.l1_loss(found["reconstructions"], volumes)

    def reconstruct(self, network: Any, volumes: Tensor) -> Tensor:
        return network.detokenize(network.tokenize(volumes))

    def encode(self, network: Any, volumes: Tensor) -> Tensor:
        return network.tokenize(volumes).flatten(1).long()

    def second(self, latents: Tensor) -> nn.Module:
        return self.network(
            seq_length=TOKENS,
            vocab_size=CODES,
            hidden_size=self.width,
            depth=6,
            num_heads=6,
            num_classes=self.classes,
            masked=True,
            gradient_checkpointing=False,
        )

    def second_loss(self, network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
        return self.diffusion.compute_loss(network, latents, y=labels)

    def draw(self, first: Any, second: nn.Module, labels: Tensor) -> Tensor:
        tokens = self.diffusion.sample(second.eval(), (len(labels), TOKENS), y=labels)
        # The mask token is as good as never left over; there is no volume with it.
        return first.detokenize(tokens.clamp_max(CODES - 1).view(-1, *GRID))


class Mended(Shipped):
    """DiscreteDiT trained and sampled as MaskGIT."""

    name = "medlatents-mended"

    def __init__(self, classes: int, sampler: SamplerConfig) -> None:
        super().__init__(classes)
        self.sampler = sampler

    def settings(self) -> dict[str, object]:
        return super().settings() | {"sampler": self.sampler.model_dump(mode="json")}

    def second_loss(self, network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
        share = gamma("arccos", torch.rand(len(latents)), TOKENS)[:, None]
        hidden = torch.rand(latents.shape) < share
        hidden[:, 0] |= ~hidden.any(1)
        logits = network(latents.masked_fill(hidden, CODES), self._time(share[:, 0]), labels)
        return F.cross_entropy(logits[hidden][:, :CODES], latents[hidden])

    def _time(self, share: Tensor) -> Tensor:
        return (share * (self.timesteps - 1)).round().long()

    def draw(self, first: Any, second: nn.Module, labels: Tensor) -> Tensor:
        def logits(tokens: Tensor, progress: float) -> Tensor:
            flat = tokens.flatten(1)
            share = (flat == CODES).float().mean(1)
            return second(flat, self._time(share), labels).view(*tokens.shape, -1)

        tokens = sample(
            logits,
            torch.full((len(labels), *GRID), CODES),
            mask_id=CODES,
            order=self.sampler.order,
            steps=self.sampler.steps,
            schedule=self.sampler.scheduler_type,
            temperature=self.sampler.temperature,
            final_temperature=self.sampler.final_temperature,
            choice_temperature=self.sampler.choice_temperature,
        )
        return first.detokenize(tokens)
