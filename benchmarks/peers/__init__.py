"""Each way to compute a sweep, in a process of its own: the models, the questions, and how each way answers them."""
