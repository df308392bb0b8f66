"""Statistics of reconstructed and generated volumes."""
