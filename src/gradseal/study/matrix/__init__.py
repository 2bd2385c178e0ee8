"""Every attack against every policy: the suite that judges, its cases, and the table of them."""
