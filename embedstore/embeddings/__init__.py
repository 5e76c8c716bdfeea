"""What is kept of a cell, its crop and its vectors, and which model a vector is of."""
