"""Fewer weights: masks, learned gates, whole channels."""
