"""Secrets, and everything that must not reveal them: encryption, masking, signatures, redaction.

Start reading at `encryption` (the model field) and `masker`.
"""
