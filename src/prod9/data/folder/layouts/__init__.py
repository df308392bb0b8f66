"""How folders of scans are laid out; each module but ``found`` and ``documents`` knows one way."""
