"""What browser tests and screenshots share: a watched Chromium and a person's steps in it."""
