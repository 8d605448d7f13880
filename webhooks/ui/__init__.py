"""The screens of Integrations -> Webhooks 2.0, a folder each.

What two screens share stands here under its own noun.
"""
