"""Find every user-visible text, update the Ukrainian translation, and compile it."""
