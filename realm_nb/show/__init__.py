"What a run retrieves and how sure it is: pictures, comparisons and the app."
