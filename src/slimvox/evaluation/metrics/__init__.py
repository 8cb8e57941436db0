"""How good a guess is: pure functions over numpy arrays and text, one measure a file."""
