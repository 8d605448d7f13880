"""The delivery log and the page of one delivery."""
