"""Proof from outside: what clients saw, judged by a program that knows no broker."""
