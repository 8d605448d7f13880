"""The pages. `listing`: what exists; `form`, `authorization`, `testing`: making it work."""
