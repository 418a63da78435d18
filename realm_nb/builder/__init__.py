"Versions of the index built by a process of its own, and what looks after it."
