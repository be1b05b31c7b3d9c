"""Why a model cannot be served by the kernel. Whoever catches these serves it with XGBoost instead.

* KernelError
  * NotBuilt       no shared object and no C compiler that works: `python -m models.kernel.build` says why
  * NotSupported   the model is of a kind that the kernel does not know
  * NotEqual       the kernel and XGBoost disagree on a margin of this model
"""


class KernelError(Exception):
    """The kernel cannot serve this: use XGBoost."""


class NotBuilt(KernelError):
    """There is no shared object and it cannot be compiled here."""


class NotSupported(KernelError):
    """Categories, several outputs, too deep, not a tree booster, or another objective."""


class NotEqual(KernelError):
    """A margin differs from XGBoost's: another version of XGBoost sums otherwise, or the model is damaged."""
