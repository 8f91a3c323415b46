"""The one exception that people are meant to read."""


class Refused(ValueError):
    """Bad input or an impossible request, said in a sentence a person can act on.

    The message names what was wrong, what is allowed and what to do. Pages show it as it is; the command line
    prints it to stderr and exits with status 2.
    """
