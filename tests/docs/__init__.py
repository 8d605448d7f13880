"""The pages generated from the sources (`make docs`), and tests of the other pages."""
