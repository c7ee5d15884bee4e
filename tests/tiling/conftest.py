import torch

# One core for each test process: the arrays are small, and threads would only wait for each other.
torch.set_num_threads(1)
