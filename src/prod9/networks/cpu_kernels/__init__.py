"""Operations that a CPU computes faster in another layout or library."""
