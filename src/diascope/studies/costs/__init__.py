"""What studies cost: the work in a training, how fast a device does it, and how many share it."""
