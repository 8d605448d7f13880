"""The screens of Integrations -> Webhooks 2.0, one folder per screen.

Modules that several screens share are directly in this package.
"""
