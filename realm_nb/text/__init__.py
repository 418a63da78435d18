"From sources to sentences, pieces and the spans worth hiding."
