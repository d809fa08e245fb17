"""Phase two: the three stages, the decoder, and what trains and scores them."""
