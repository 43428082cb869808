"""What guidance costs and how good it is, measured in one run beside the unguided pictures of the same seeds."""
