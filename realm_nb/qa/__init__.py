"The second half: asking and answering questions, fine-tuning, the paper's table 1."
