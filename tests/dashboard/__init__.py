"""The dashboard, in a real browser, where there is one."""
