"""Encoders: a core shared by all animals, a readout and a shifter per animal."""
