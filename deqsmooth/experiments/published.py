"""Tables of the paper (Gao et al. 2024), as published."""

from deqsmooth.reports import tables

CIFAR10 = tables.Table(
    "CIFAR-10, sigma 0.5: certified accuracy in percent at radii, and seconds an image on an A100, as published",
    ("", "0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "s"),
    (
        ("MDEQ-LARGE-1A", "28", "19", "13", "8", "5", "3", "1", "1.06"),
        ("MDEQ-LARGE-5A", "50", "41", "32", "21", "15", "10", "6", "2.59"),
        ("MDEQ-LARGE-30A", "67", "55", "45", "33", "23", "16", "12", "12.89"),
        ("SRS-MDEQ-LARGE-1N", "61", "52", "44", "31", "22", "15", "11", "1.02"),
        ("SRS-MDEQ-LARGE-1A", "63", "53", "45", "32", "22", "16", "12", "1.79"),
        ("SRS-MDEQ-LARGE-3A", "66", "54", "45", "33", "23", "16", "11", "2.55"),
        ("MDEQ-SMALL-30A", "62", "50", "38", "30", "22", "13", "9", ""),
        ("SRS-MDEQ-SMALL-3A", "60", "50", "38", "29", "21", "12", "8", ""),
        ("ResNet-110", "65", "54", "41", "32", "23", "15", "9", ""),
    ),
)
