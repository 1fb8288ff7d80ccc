"""Certifies every 20th test image at sigma 0.5 with the model of job 1."""

import table

if __name__ == "__main__":
    table.main(0.5)
