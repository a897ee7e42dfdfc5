"""Features of sparse autoencoders: the encoder, the units, the folders of SAELens and sparsify."""
