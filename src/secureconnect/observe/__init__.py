"""What the house tells about itself: logs, metrics, stages of a request, status of its features."""
