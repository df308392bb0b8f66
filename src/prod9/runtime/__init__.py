"""The process and its machine: terminal, signals, memory, other processes."""
