"""What a state folder holds, in the forms that others read."""
