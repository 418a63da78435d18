"The home of checkpoints: the released ones read and asked, our own shared."
