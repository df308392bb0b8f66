"""Figures of merit: one value per volume or pair, computed on tensors, in fp64 where it matters."""
