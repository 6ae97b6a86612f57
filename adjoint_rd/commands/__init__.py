"""The commands of ``adjoint-rd``, one module each: ``register(commands)`` adds its parser, ``run(args)`` does it."""
