"""The webhook form, and the requests it makes while it is being filled in."""
