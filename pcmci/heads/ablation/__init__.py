"""Many runs from one command: which, where they are trained, and what tables come of them."""
