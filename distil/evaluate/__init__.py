"""Measuring students: what they are asked, their answers, metrics and tables."""
