"""Parts of `adjoint_rd.invert`: clean up the data, a start from the equation residual, refinement, the verdict."""
