"""Simulated recordings in the released layout: true rates, and so best scores, are known."""
