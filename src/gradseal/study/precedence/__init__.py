"""What each part of the sealed plan is for: attacks by a thief, as the parts are removed one by one."""
