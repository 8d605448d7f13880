"""Canary secrets, the possible spellings of a leak, and every place where one could appear."""
