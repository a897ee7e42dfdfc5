"""The numbers behind a contrast: intervals, tests, agreement of sites, what covariates leave."""
