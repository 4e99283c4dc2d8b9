"""Federated learning whose every step can be proved afterwards."""

__version__ = "0.1.0"
