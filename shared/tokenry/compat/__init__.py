"""Drop-in replacements for libraries that old code uses."""
