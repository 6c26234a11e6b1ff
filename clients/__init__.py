"""Client library of Kotak."""
