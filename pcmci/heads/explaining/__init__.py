"""What a trained head made of a video, as numbers, and which videos are worth looking at."""
