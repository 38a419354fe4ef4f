"""Models by name, their weights and their training. Names load on first use."""

from __future__ import annotations

from .._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ModelSpec": ".registry",
        "create_model": ".registry",
        "list_models": ".registry",
        "register": ".registry",
        "Pretrained": ".weights",
        "from_pretrained": ".weights",
        "save_pretrained": ".weights",
    },
)
