"""What a training run needs: memory, arithmetic, time."""
