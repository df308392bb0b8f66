"""What a training run needs: memory, floating point operations, disk, time."""
