"""Cores: from a normalised clip to features over time and space. One file, one architecture."""
