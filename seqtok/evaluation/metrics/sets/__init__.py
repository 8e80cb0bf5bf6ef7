"""Two sets of pictures held against each other in the features of a fixed network."""
