"""The study of which head removes which confounder, on features whose causes are known."""
