"""Scores from streamed per-neuron moments. Imports neither torch nor networks."""
