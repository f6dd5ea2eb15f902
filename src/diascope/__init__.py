"""Diascope presses on classifiers of medical images and looks through them."""

__version__ = "0.1.0"
