"""A finished run to what a person reads of it: tables beside published ones, and one page with everything."""
