"""What is in deploy/: does it name what there is, and would the tools that read it take it?"""
