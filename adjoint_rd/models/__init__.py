"""The models that come with the library, by name, and `Model` for users' own."""

from ..errors import InputError, did_you_mean
from .allen_cahn import allen_cahn
from .base import Model
from .gray_scott import gray_scott
from .schnakenberg import schnakenberg

MODELS: dict[str, Model] = {model.name: model for model in (gray_scott, schnakenberg, allen_cahn)}


def get(model: str | Model) -> Model:
    """Return `model` itself, or the built-in model of that name; an `InputError` says which names exist."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str) and model in MODELS:
        return MODELS[model]
    raise InputError(
        f"model={model!r} is not known; use one of {', '.join(MODELS)} or your own adjoint_rd.Model."
        f"{did_you_mean(str(model), MODELS)}"
    )


__all__ = ["MODELS", "Model", "allen_cahn", "get", "gray_scott", "schnakenberg"]
