"""Figures that papers print for face ageing, to be shown beside one's own.

Each table was measured by its authors' judges, most of them closed services; they are not
comparable with ours number by number. `source` says where the rows are from.
"""

from __future__ import annotations

TABLES = [
    {
        "title": "CelebA-HQ, 200 faces (Cradle2Cane, 2025)",
        "source": "third-party summary; Face++ ages and compare confidence",
        "columns": ["method", "age difference", "identity", "quality", "HCS", "s per image"],
        "rows": [
            ["Lifespan", 22.07, 79.80, 66.68, 57.40, 0.95],
            ["HRFAE", 15.12, 94.32, 62.28, 74.95, 0.17],
            ["SAM", 8.42, 81.96, 68.38, 80.42, 0.39],
            ["CUSP", 9.59, 85.92, 64.98, 80.67, 0.24],
            ["FADING", 14.47, 86.70, 64.65, 73.52, 61.3],
            ["IPFE", 11.95, 75.14, 63.55, 72.54, 8.84],
            ["Cradle2Cane", 7.47, 81.34, 72.69, 81.33, 0.56],
        ],
        "protocols": ["strip"],
    },
    {
        "title": "12 celebrities to other ages (MyTimeMachine, 2024)",
        "source": "paper; FP-Age, and the best ArcFace cosine to real photographs within 3 years",
        "columns": ["method", "MAE, younger", "identity", "MAE, older", "identity"],
        "rows": [
            ["SAM", 8.1, 0.49, 6.9, 0.54],
            ["CUSP", 11.0, 0.39, 7.3, 0.44],
            ["AgeTransGAN", 11.1, 0.53, 8.5, 0.61],
            ["FADING", 8.9, 0.60, 7.6, 0.62],
            ["MyTimeMachine, 50 photographs", 7.7, 0.67, 6.3, 0.70],
        ],
        "protocols": ["reference"],
    },
    {
        "title": "Young faces to 60, CelebA-HQ (FaceTT)",
        "source": "third-party summary; Face++, which reads real people of 60 as 65.14",
        "columns": ["method", "age read", "deviation", "blur", "gender kept %", "smile kept %"],
        "rows": [
            ["HRFAE", 55.05, 9.18, 3.42, 94.80, 74.60],
            ["CUSP", 57.57, 7.88, 3.39, 89.79, 75.88],
            ["FADING", 69.88, 6.20, 2.18, 98.44, 76.17],
            ["FaceTT", 62.05, 6.81, 2.18, 99.79, 78.31],
        ],
        "protocols": ["young60"],
    },
    {
        "title": "Ten classes of FFHQ-Aging (FaceTT)",
        "source": "third-party summary; Face++",
        "columns": ["method", "MAE", "gender kept"],
        "rows": [
            ["HRFAE", 21.84, 0.45],
            ["CUSP", 16.40, 0.51],
            ["FADING", 13.47, 0.57],
            ["FaceTT", 11.40, 0.62],
        ],
        "protocols": ["lifespan"],
    },
    {
        "title": "There and back (FaceTT)",
        "source": "third-party summary; cosine to the input",
        "columns": ["method", "cyclic identity, FFHQ", "celebrities"],
        "rows": [["FaceTT", 0.69, 0.80]],
        "protocols": ["cycle"],
    },
    {
        "title": "Later photographs of the same person (FaceTT)",
        "source": "third-party summary; cosine to the true later photograph",
        "columns": ["method", "reference identity"],
        "rows": [["FADING", 0.50], ["FaceTT", 0.55]],
        "protocols": ["reference"],
    },
]


def tables_for(protocol: str) -> list[dict]:
    """Return the tables whose authors measured about what this protocol measures."""
    return [table for table in TABLES if protocol in table["protocols"]]
