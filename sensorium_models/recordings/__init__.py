"""Recordings: released archives in, one checked HDF5 store per animal out, clips for networks."""

# What is recorded frame by frame; all but the first two may be absent.
MODALITIES = ("video", "responses", "behavior", "pupil_center")
