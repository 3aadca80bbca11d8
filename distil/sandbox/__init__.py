"""Running programs that a model wrote, kept away from this machine."""
