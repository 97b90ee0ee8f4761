"""From result files to a page for people; reads results, never changes them."""
