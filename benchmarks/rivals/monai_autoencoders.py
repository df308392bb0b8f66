"""MONAI's volume autoencoders, and the training step of MONAI's tutorials."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import VQVAE, AutoencoderKL, PatchDiscriminator
from torch import Tensor, nn

KL_WEIGHT = 1e-6
ADVERSARIAL_WEIGHT = 0.01
LEARNING_RATE = 1e-4
"""All three as in the tutorial 3d_autoencoderkl; none of them changes the time of a step."""


def autoencoder_kl(
    widths: Sequence[int], res_blocks: int, latent_channels: int, groups: int
) -> AutoencoderKL:
    """Return ``AutoencoderKL`` without attention, as prod9's networks are."""
    return AutoencoderKL(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=tuple(widths),
        num_res_blocks=res_blocks,
        attention_levels=[False] * len(widths),
        latent_channels=latent_channels,
        norm_num_groups=groups,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )


def maisi(
    widths: Sequence[int], res_blocks: int, latent_channels: int, groups: int
) -> AutoencoderKlMaisi:
    """Return MAISI's autoencoder, without attention.

    Unsplit and in fp32: splitting saves memory of volumes far larger than these and costs time, and
    half precision norms are meant for GPUs.
    """
    return AutoencoderKlMaisi(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        num_channels=tuple(widths),
        num_res_blocks=[res_blocks] * len(widths),
        attention_levels=[False] * len(widths),
        latent_channels=latent_channels,
        norm_num_groups=groups,
        num_splits=1,
        norm_float16=False,
        save_mem=False,
    )


class MaisiFSQ(nn.Module):
    """MAISI's encoder and decoder with vector-quantize-pytorch's FSQ in between.

    (B, 1, D, H, W) -> the same; sides are multiples of 2^(levels of width - 1).
    """

    def __init__(self, widths: Sequence[int], levels: Sequence[int], groups: int) -> None:
        super().__init__()
        from vector_quantize_pytorch import FSQ

        whole = maisi(widths, res_blocks=1, latent_channels=len(levels), groups=groups)
        self.encoder, self.decoder = whole.encoder, whole.decoder
        self.fsq = FSQ(list(levels), channel_first=True)

    def forward(self, volumes: Tensor) -> Tensor:
        codes, _ = self.fsq(self.encoder(volumes))
        return self.decoder(codes)


def vqvae(width: int, codes: int) -> VQVAE:
    """Return the network of the tutorial 3d_vqvae with ``width`` channels (256 there).

    Two strided convolutions (stride 4), two residual layers each, codes of 32 numbers.
    """
    return VQVAE(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=(width, width),
        num_res_channels=(width, width),
        num_res_layers=2,
        downsample_parameters=((2, 4, 1, 1), (2, 4, 1, 1)),
        upsample_parameters=((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
        num_embeddings=codes,
        embedding_dim=32,
    )


def patch_discriminator(channels: int, layers: int) -> PatchDiscriminator:
    """Return the tutorials' discriminator: instance norm, as MAISI's VAE is trained with."""
    return PatchDiscriminator(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=channels,
        num_layers_d=layers,
        norm="INSTANCE",
    )


class TutorialTraining:
    """The loop of the tutorials (3d_autoencoderkl; MAISI's VAE), one batch at a time.

    Args:
        autoencoder: returns (reconstruction, mean, standard deviation of the latent).
        discriminator: returns its layers' outputs, the logits last.
        feature_loss: called with (reconstruction, images), as the tutorials' perceptual loss is.
        feature_weight: of that term.

    """

    def __init__(
        self,
        autoencoder: nn.Module,
        discriminator: nn.Module,
        feature_loss: nn.Module,
        feature_weight: float,
    ) -> None:
        self.autoencoder = autoencoder.train()
        self.discriminator = discriminator.train()
        self.feature_loss, self.feature_weight = feature_loss, feature_weight
        self.adversarial = PatchAdversarialLoss(
            criterion="least_squares", no_activation_leastsq=True
        )
        self.optimizer_g = torch.optim.Adam(autoencoder.parameters(), lr=LEARNING_RATE)
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=LEARNING_RATE)

    def step(self, images: Tensor) -> dict[str, Tensor]:
        """Update the autoencoder, then the discriminator; return the terms, for the tests."""
        self.optimizer_g.zero_grad(set_to_none=True)
        reconstruction, mean, deviation = self.autoencoder(images)
        variance = deviation.square()
        per_volume = 0.5 * (mean.square() + variance - variance.log() - 1).flatten(1).sum(1)
        # The discriminator's own gradients of this pass are thrown away, as in the tutorials.
        logits = self.discriminator(reconstruction.contiguous().float())[-1]
        terms = {
            "l1": F.l1_loss(reconstruction.float(), images.float()),
            "kl": KL_WEIGHT * per_volume.mean(),
            "feature": self.feature_weight
            * self.feature_loss(reconstruction.float(), images.float()),
            "adversarial": ADVERSARIAL_WEIGHT
            * self.adversarial(logits, target_is_real=True, for_discriminator=False),
        }
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer_g.step()

        self.optimizer_d.zero_grad(set_to_none=True)
        logits = self.discriminator(reconstruction.contiguous().detach())[-1]
        fake = self.adversarial(logits, target_is_real=False, for_discriminator=True)
        logits = self.discriminator(images.contiguous().detach())[-1]
        real = self.adversarial(logits, target_is_real=True, for_discriminator=True)
        terms["discriminator"] = ADVERSARIAL_WEIGHT * 0.5 * (fake + real)
        terms["discriminator"].backward()
        self.optimizer_d.step()
        return {name: term.detach() for name, term in terms.items()}
