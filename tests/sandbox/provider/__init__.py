"""An OAuth 2.0 provider on django-oauth-toolkit, strict, loopback only, with faults on demand."""
