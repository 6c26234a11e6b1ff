"""Engines behind the store port."""
