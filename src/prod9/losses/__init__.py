"""Loss terms of Stage 1: pure functions of tensors, and the frozen network one of them needs."""
