"""Networks: autoencoder, discriminator, masked transformer."""
