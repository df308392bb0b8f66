"""Lightning modules and callbacks; they only orchestrate."""
