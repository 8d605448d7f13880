"""Secrets and what must not show them: encryption, masking, signatures, log and error redaction.

Start reading at `encryption` (the model field) and `masker`.
"""
