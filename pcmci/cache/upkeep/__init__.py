"""What is done with a whole store after it was made: looked into, checked, mended, copied."""
