"""Drop-ins for other libraries: the same names, arguments, defaults, results and gradients, on fused
operations.

    from siamese_fast.compat.pytorch_metric_learning import TripletMarginLoss, BatchHardMiner
    from siamese_fast.compat.torch_nn import TripletMarginLoss

Each module imports its library when it is itself imported. Where a combination of options has no fused
form, the library's own code runs: slower, never another answer.
"""
