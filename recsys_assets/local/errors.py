"""What can go wrong here, for a command line to catch at once; each message says what to do."""


class LocalError(Exception):
    """Base of the errors of ``recsys_assets.local``."""


class MissingPackageError(LocalError):
    """A package of the extra ``local`` is not installed."""


class ServiceError(LocalError):
    """An embedded server cannot be started or stopped; the message has the end of its log."""


class ShopNotEmptyError(LocalError):
    """The database holds tables that are not the wanted sample; they were left as they are."""


class CsvError(LocalError):
    """CSV files have bad lines; nothing was loaded."""
