"""Names of MR channels that mean the same."""

_SYNONYMS = {
    "T1": ("t1", "t1n", "t1w"),
    "T1ce": ("t1ce", "t1c", "t1gd"),
    "T2": ("t2", "t2w"),
    "FLAIR": ("flair", "t2f"),
}
"""The names of BraTS 2018-2021, of BraTS 2023-2024 and of the Medical Segmentation Decathlon."""
_MEANINGS = {name: channel for channel, names in _SYNONYMS.items() for name in names}


def meaning_of(name: str) -> str:
    """Return what a channel is, whatever it is called: ``t1c`` and ``T1Gd`` are ``T1ce``.

    A name without synonyms stays as it is.
    """
    return _MEANINGS.get(name.lower(), name)


def synonyms_of(name: str) -> tuple[str, ...]:
    """Return all names, in lower case, of the channel that is called ``name``."""
    return _SYNONYMS.get(meaning_of(name), (name.lower(),))
