"""Training of one member: the loop, its losses and schedules, and checkpoints that restart it."""
