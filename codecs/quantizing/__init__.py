"""Weights to integers: steps, sensitivity, rounding, the trellis."""
