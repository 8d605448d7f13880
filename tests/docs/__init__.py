"""The pages that are written from the sources (`make docs`), and tests of those that are not."""
