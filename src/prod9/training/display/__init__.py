"""What a training shows of itself: its duration beforehand, its progress, pictures."""
