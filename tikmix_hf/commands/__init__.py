"""What `tikmix` does: a file per command, and the parts that it is made of."""
