"""Verifiers: is an answer right, is a step true, does a program pass its tests?"""
