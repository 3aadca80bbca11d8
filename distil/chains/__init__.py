"""Chains of thought: collect them from a teacher, rewrite them, judge them for the student."""
