"""Licences as data sets state them: which let anyone pass the data on, and the Hub's names for them."""

from __future__ import annotations

import re

# Words of the licence as stated -> the Hub's identifier (https://huggingface.co/docs/hub/repositories-licenses).
# All of them allow redistribution; where they ask for something in return, the data card repeats the licence.
_KNOWN = {
    r"cc[- ]?0|creative commons zero|public domain": "cc0-1.0",
    r"cc[- ]by[- ]nc[- ]sa[- ]4\.0": "cc-by-nc-sa-4.0",
    r"cc[- ]by[- ]nc[- ]4\.0": "cc-by-nc-4.0",
    r"cc[- ]by[- ]sa[- ]4\.0": "cc-by-sa-4.0",
    r"cc[- ]by[- ]4\.0": "cc-by-4.0",
    r"odc[- ]by": "odc-by",
    r"odbl": "odbl",
    r"pddl": "pddl",
    r"mit": "mit",
    r"apache[- ]2\.0|apache license,? (version )?2\.0": "apache-2.0",
    r"bsd[- ]3": "bsd-3-clause",
    r"cdla[- ]permissive[- ]2\.0": "cdla-permissive-2.0",
}


def hub_licence(licence: str | None) -> str | None:
    """The Hub's identifier of a licence that allows redistribution; None for all others and for none stated."""
    for pattern, identifier in _KNOWN.items():
        if licence and re.match(rf"\s*({pattern})(?![\w.])", licence, re.IGNORECASE):
            return identifier
    return None


def licence_header(licence: str | None) -> dict[str, str]:
    """The licence's lines in the header of a data or model card."""
    known = hub_licence(licence)
    return {"license": known} if known else {"license": "other", "license_name": licence or "not stated"}
