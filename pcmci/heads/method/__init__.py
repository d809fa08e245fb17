"""The paper: its equations as functions, and the stages and the decoder made of them."""
