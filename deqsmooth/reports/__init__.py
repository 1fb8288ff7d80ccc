"""Reports: from files of certificates to tables, figures and pages, without JAX."""
