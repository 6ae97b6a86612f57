"""The parts of `adjoint_rd.minimize`: rules, state, trials under guard, the loop, and its files."""
