"""Integers to bytes and back: the stream of one quantized network."""
