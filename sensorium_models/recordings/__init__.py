"""Recordings: released archives in, one checked HDF5 store per animal out, clips for networks."""
