"""What a file format has to offer, the three that do, and which one a path means."""
