"""A video file to exactly the frames asked for, in processes that a bad file cannot hurt."""
