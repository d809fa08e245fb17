"""Phase one: videos and annotations to a feature store.

The folder has the name of the function that `import pcmci` offers: it can be called as that one.
"""

import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """`pcmci.extract.pipeline.extract`."""
        from pcmci.extract.pipeline import extract

        return extract(*arguments, **settings)


sys.modules[__name__].__class__ = _Called
