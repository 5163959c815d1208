"""Rate: what a network shall take, learning with its bits in the loss, and meeting a target."""
