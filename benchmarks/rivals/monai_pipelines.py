"""MONAI's two ways to generate volumes: VQVAE + transformer, AutoencoderKL + latent diffusion."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pipeline_training import CODES, TOKENS, Rates, Rival, in_blocks
from benchmarks.rivals.monai_autoencoders import KL_WEIGHT, autoencoder_kl, vqvae

GRID = (7, 7, 7)


class Autoregressive(Rival):
    """``VQVAE`` and ``DecoderOnlyTransformer``: the class, then the tokens one after the other.

    Drawn as MONAI's ``VQVAETransformerInferer`` does it: a pass of the whole sequence so far for
    each token, nothing kept between them.
    """

    name = "monai-autoregressive"
    rates = Rates(3e-4, 1e-3)
    width, dim, depth, heads = 64, 192, 6, 6

    def settings(self) -> dict[str, object]:
        sizes = {"dim": self.dim, "depth": self.depth, "heads": self.heads}
        return {"vqvae_width": self.width, **sizes}

    def first(self) -> nn.Module:
        return vqvae(self.width, CODES)

    def first_loss(self, network: nn.Module, volumes: Tensor) -> Tensor:
        made, commitment = network(volumes)
        return F.l1_loss(made, volumes) + commitment

    def reconstruct(self, network: nn.Module, volumes: Tensor) -> Tensor:
        return network(volumes)[0]

    def encode(self, network: Any, volumes: Tensor) -> Tensor:
        return network.index_quantize(volumes).flatten(1).long()

    def second(self, latents: Tensor) -> nn.Module:
        from monai.networks.nets import DecoderOnlyTransformer

        return DecoderOnlyTransformer(
            num_tokens=CODES + self.classes,
            max_seq_len=TOKENS,
            attn_layers_dim=self.dim,
            attn_layers_depth=self.depth,
            attn_layers_heads=self.heads,
        )

    def _begun(self, labels: Tensor) -> Tensor:
        return CODES + labels[:, None]

    def second_loss(self, network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
        given = torch.cat([self._begun(labels), latents[:, :-1]], 1)
        return F.cross_entropy(network(given).flatten(0, 1), latents.flatten())

    def draw(self, first: Any, second: nn.Module, labels: Tensor) -> Tensor:
        sequence = self._begun(labels)
        for _ in range(TOKENS):
            chances = second(sequence)[:, -1, :CODES].softmax(-1)
            sequence = torch.cat([sequence, chances.multinomial(1)], 1)
        return first.decode_samples(sequence[:, 1:].view(-1, *GRID))


class LatentDiffusion(Rival):
    """``AutoencoderKL`` and ``DiffusionModelUNet``, class-conditioned, drawn by DDIM.

    The latents are divided by their standard deviation, as in MONAI's tutorials, and their 7^3
    cells are padded to 8^3, which the network can halve.
    """

    name = "monai-latent-diffusion"
    rates = Rates(1e-3, 1e-3)
    channels = 4
    fewest, most = 10, 250
    """DDIM steps."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

        # The tutorial's schedule; latents are not in [-1, 1].
        schedule = {
            "num_train_timesteps": 1000,
            "schedule": "scaled_linear_beta",
            "beta_start": 0.0015,
            "beta_end": 0.0195,
            "clip_sample": False,
        }
        self.noising, self.ddim = DDPMScheduler(**schedule), DDIMScheduler(**schedule)
        self.deviation, self.steps = 1.0, 50

    def settings(self) -> dict[str, object]:
        return {
            "autoencoder": [32, 64, 96],
            "latent_channels": self.channels,
            "unet": [64, 128],
            "ddim_steps": self.steps,
        }

    def first(self) -> nn.Module:
        return autoencoder_kl((32, 64, 96), 1, self.channels, groups=8)

    def first_loss(self, network: nn.Module, volumes: Tensor) -> Tensor:
        made, mean, deviation = network(volumes)
        variance = deviation.square()
        kl = 0.5 * (mean.square() + variance - variance.log() - 1).flatten(1).sum(1).mean()
        return F.l1_loss(made, volumes) + KL_WEIGHT * kl

    def reconstruct(self, network: Any, volumes: Tensor) -> Tensor:
        return network.decode(network.encode(volumes)[0])

    def encode(self, network: Any, volumes: Tensor) -> Tensor:
        return network.encode(volumes)[0]

    def second(self, latents: Tensor) -> nn.Module:
        from monai.networks.nets import DiffusionModelUNet

        self.deviation = float(latents.std())
        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=self.channels,
            out_channels=self.channels,
            num_res_blocks=1,
            channels=(64, 128),
            attention_levels=(False, True),
            norm_num_groups=16,
            num_head_channels=32,
            num_class_embeds=self.classes,
        )

    def second_loss(self, network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
        clean = F.pad(latents / self.deviation, (0, 1) * 3)
        noise = torch.randn_like(clean)
        moments = torch.randint(self.noising.num_train_timesteps, (len(clean),))
        noisy = self.noising.add_noise(clean, noise, moments)
        return F.mse_loss(network(noisy, moments, class_labels=labels), noise)

    def settle(self, first: nn.Module, second: nn.Module, seconds_a_volume: float | None) -> None:
        if seconds_a_volume is None:
            return
        batch = 8
        x, labels = torch.randn(batch, self.channels, 8, 8, 8), torch.zeros(batch, dtype=torch.long)
        moments = torch.zeros(batch, dtype=torch.long)
        spent: list[float] = []
        with torch.no_grad():
            for _ in range(4):
                began = time.perf_counter()
                second(x, moments, class_labels=labels)
                spent.append((time.perf_counter() - began) / batch)
        affordable = int(seconds_a_volume / min(spent))
        self.steps = min(self.most, max(self.fewest, affordable))

    def draw(self, first: Any, second: nn.Module, labels: Tensor) -> Tensor:
        x = torch.randn(len(labels), self.channels, 8, 8, 8)
        self.ddim.set_timesteps(self.steps)
        for moment in self.ddim.timesteps.tolist():
            moments = torch.full((len(labels),), moment)
            x, _ = self.ddim.step(second(x, moments, class_labels=labels), moment, x)
        return in_blocks(first.decode, x[:, :, :7, :7, :7] * self.deviation)
