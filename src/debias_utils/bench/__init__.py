"""One bench for all ways to debias CLIP's embeddings: the same data, the same measures, the same normalisation."""
