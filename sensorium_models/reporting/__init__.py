"""Figures, tables and the report page, made from result files alone."""
