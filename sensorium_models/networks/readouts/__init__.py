"""Readouts: from the features of the core to one rate per neuron and frame."""
