"""Certifies every 20th test image at sigma 0.25 with the model of job 3."""

import table

if __name__ == "__main__":
    table.main(0.25)
